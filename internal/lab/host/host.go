// Package host is a lab host from the inside: the first process (PID 1) of its namespaces. It makes the host's file system and
// addresses, runs its programs and reaps what they leave.
//
// Floor 4, programs.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/internal/lab/control"
)

// Config is what the lab tells a host.
type Config struct {
	Name    string       `json:"name"`
	Address netip.Prefix `json:"address"` // with the underlay's prefix length
	Gateway netip.Addr   `json:"gateway"`
	MTU     int          `json:"mtu"`   // bytes, of eth0
	Hosts   []Entry      `json:"hosts"` // /etc/hosts
	State   string       `json:"state"` // the lab's state directory, absolute
	Bin     string       `json:"bin"`   // directory of weft's binaries; "" for none
}

// Entry is a line of /etc/hosts.
type Entry struct {
	Address netip.Addr `json:"address"`
	Name    string     `json:"name"`
}

// Directories of the host on the machine's disk, below the lab's state directory.
func dir(state, host, name string) string { return filepath.Join(state, "hosts", host, name) }

// Disk returns where a file of the host's /etc, /var or /root lies on the machine, as path says; "" for any other.
func Disk(state, host, path string) string {
	for _, d := range disk {
		if strings.HasPrefix(path, "/"+d+"/") {
			return dir(state, host, path[1:])
		}
	}
	return ""
}

// Path is the search path of a host's programs.
const Path = BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Env is the environment of programs and of what "weft lab exec" runs.
func Env(name string) []string {
	return []string{"PATH=" + Path, "HOME=/root", "USER=root", "LOGNAME=root", "HOSTNAME=" + name, "LC_ALL=C.UTF-8"}
}

// Run is the whole life of a host. It reads its Config from in, where the lab writes it once eth0 is there, and answers "ok" or the
// error on out. It returns when ctx ends, after stopping the programs.
func Run(ctx context.Context, in io.Reader, out io.WriteCloser) error {
	h, err := setUp(in)
	if err != nil {
		_, _ = fmt.Fprintln(out, err) // the lab may be gone; the error is returned too
		return err
	}
	go h.programs.reap(ctx)
	if _, err := fmt.Fprintln(out, "ok"); err != nil {
		return fmt.Errorf("answer the lab: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("answer the lab: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- control.Serve(h.socket, h.programs) }()
	select {
	case <-ctx.Done():
		h.programs.stopAll()
		_ = h.socket.Close()
		return <-served
	case err := <-served:
		return err
	}
}

type live struct {
	socket   net.Listener
	programs *programs
}

func setUp(in io.Reader) (*live, error) {
	var c Config
	if err := json.NewDecoder(in).Decode(&c); err != nil {
		return nil, fmt.Errorf("read host configuration: %w", err)
	}
	// What lies in the state directory is opened before the machine's files go out of sight.
	logs, err := os.OpenRoot(filepath.Join(c.State, "logs"))
	if err != nil {
		return nil, fmt.Errorf("open log directory: %w", err)
	}
	socket, err := net.Listen("unix", control.Socket(c.State, c.Name))
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := mounts(c); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return nil, fmt.Errorf("set host name: %w", err)
	}
	if err := addresses(c); err != nil {
		return nil, err
	}
	NameProcess("weft-host")
	return &live{socket, newPrograms(c.Name, logs)}, nil
}

func addresses(c Config) error {
	return IP(
		"link set lo up",
		fmt.Sprintf("addr add %s brd + dev eth0", c.Address),
		fmt.Sprintf("link set eth0 mtu %d up", c.MTU),
		fmt.Sprintf("route add default via %s dev eth0", c.Gateway),
	)
}

// NameProcess names this process for ps(1), which would show "exe" for one that runs /proc/self/exe.
func NameProcess(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // the name is only looked at
}

// Find returns the path of a program of the machine; /usr/sbin and the like are not in an ordinary user's PATH on Debian.
func Find(program string) (string, error) {
	for _, d := range filepath.SplitList(os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin") {
		p := filepath.Join(d, program)
		if info, err := os.Stat(p); err == nil && !info.IsDir() && unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, os.ErrNotExist)
}

// IsGone says that a host did not answer because it is not there (any more).
func IsGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}
