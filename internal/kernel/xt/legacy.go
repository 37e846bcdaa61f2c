package xt

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacyCheck is how often the sizes of the legacy variant's tables are asked for: eight system calls of a microsecond. legacyIdle is
// how often when there are none.
const (
	legacyCheck = 50 * time.Millisecond
	legacyIdle  = time.Second
)

// WatchLegacy returns a channel that receives, coalesced, after a table of the legacy variant got another number of rules, another size or
// other places of its hooks, or came or went: whoever did it, we too. A rule replaced by another of the same size is not noticed.
// It works in the network namespace of the caller's process and ends with ctx.
func WatchLegacy(ctx context.Context) (<-chan struct{}, error) {
	var fds [2]int
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil && i == 0 {
			return nil, fmt.Errorf("watch iptables: %w", err)
		}
		if err != nil {
			fd = -1 // a kernel without IPv6
		}
		fds[i] = fd
	}
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		defer func() {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}()
		poll(ctx, fds, out)
	}()
	return out, nil
}

func poll(ctx context.Context, fds [2]int, out chan<- struct{}) {
	last := look(fds)
	for {
		every := legacyCheck
		if len(last) == 0 {
			every = legacyIdle
		}
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		now := look(fds)
		if !same(last, now) {
			select {
			case out <- struct{}{}:
			default:
			}
		}
		last = now
	}
}

// tableInfo is struct ipt_getinfo of <linux/netfilter_ipv4/ip_tables.h>; that of IPv6 is the same.
type tableInfo struct {
	name       [32]byte
	validHooks uint32
	hookEntry  [5]uint32
	underflow  [5]uint32
	entries    uint32
	size       uint32
}

// getInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const getInfo = 64

// look asks for the tables that there are; asking for another would make it.
func look(fds [2]int) map[string]tableInfo {
	all := map[string]tableInfo{}
	for i, proc := range []string{"/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"} {
		names, err := os.ReadFile(proc)
		if err != nil || fds[i] < 0 {
			continue // a kernel without the legacy interface
		}
		level := [...]int{unix.SOL_IP, unix.SOL_IPV6}[i]
		for name := range strings.FieldsSeq(string(names)) {
			var t tableInfo
			copy(t.name[:len(t.name)-1], name)
			size := uint32(unsafe.Sizeof(t))
			if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fds[i]), uintptr(level), getInfo,
				uintptr(unsafe.Pointer(&t)), uintptr(unsafe.Pointer(&size)), 0); errno == 0 {
				all[proc+name] = t
			}
		}
	}
	return all
}

func same(a, b map[string]tableInfo) bool {
	if len(a) != len(b) {
		return false
	}
	for k, t := range a {
		if b[k] != t {
			return false
		}
	}
	return true
}
