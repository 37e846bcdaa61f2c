package agent

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// closeStale ends the agent's own TCP connections from addresses that the host has no longer: their answers can't arrive, and it would take
// long until that is noticed. Who used them connects again, from an address that is there. It returns how many there were.
func closeStale(gone map[netip.Addr]bool) (int, error) {
	if len(gone) == 0 {
		return 0, nil
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("list own connections: %w", err)
	}
	n := 0
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, err := unix.Getpeername(fd); err != nil {
			continue // no connection
		}
		local, err := unix.Getsockname(fd)
		if err != nil || !gone[addrOf(local)] {
			continue
		}
		if unix.Shutdown(fd, unix.SHUT_RDWR) == nil {
			n++
		}
	}
	return n, nil
}

// addrOf is the IP address of a socket, the zero Addr of one that has none.
func addrOf(s unix.Sockaddr) netip.Addr {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(s.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(s.Addr).Unmap()
	}
	return netip.Addr{}
}

// vanished returns the addresses that are no longer there.
func vanished(before, after []netip.Addr) map[netip.Addr]bool {
	gone := map[netip.Addr]bool{}
	for _, a := range before {
		gone[a] = true
	}
	for _, a := range after {
		delete(gone, a)
	}
	return gone
}
