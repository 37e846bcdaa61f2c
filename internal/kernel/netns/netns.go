// Package netns runs code in other network namespaces and makes new ones.
//
// It also holds what kernel tests need: [Main] re-executes a test binary in namespaces of its own, so that tests need no root
// and cannot harm the host.
//
// Floor 3, edges.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// self names the network namespace of the calling thread (proc(5)); only of use on a locked thread.
const self = "/proc/thread-self/ns/net"

// errGone says that the function given to Do ended its goroutine, as testing.T.FailNow does.
var errGone = errors.New("function ended its goroutine")

// Do runs f on a thread of its own in the network namespace at path (setns(2)) and returns f's error. Sockets opened by f stay in
// that namespace; goroutines started by f do not run in it. A thread that cannot go back to where it was is thrown away.
//
// f may call testing.T.FailNow: Do then returns an error.
func Do(path string, f func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer target.Close()
	return onThread(func() error {
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return f()
	})
}

// onThread runs f on a locked thread and puts the thread's network namespace back afterwards.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result := errGone
		defer func() { done <- result }()
		before, err := os.Open(self)
		if err != nil {
			result = fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer before.Close()
		defer func() {
			// Ending the goroutine without unlocking ends the thread too.
			if unix.Setns(int(before.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		result = f()
	}()
	return <-done
}

// NS is a network namespace that lives until Close.
type NS struct {
	file *os.File
	path string // bind mount, "" for an anonymous namespace
}

// New makes a network namespace with lo up. With a path it is bind-mounted there, as ip-netns(8) does, so that other processes can
// enter it and it outlives this one; path must not exist. Without a path only this process's descriptor holds it.
func New(path string) (*NS, error) {
	n := &NS{path: path}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		if path != "" {
			if err := bind(path); err != nil {
				return err
			}
		}
		var err error
		if n.file, err = os.Open(self); err != nil {
			return fmt.Errorf("open new network namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// bind mounts the thread's network namespace on a new file at path.
func bind(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make namespace directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make namespace file: %w", err)
	}
	_ = f.Close()
	if err := unix.Mount(self, path, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("mount network namespace on %s: %w", path, err)
	}
	return nil
}

// Path is a path of the namespace, good for Do, ip-netns(8) and nsenter(1); of an anonymous one only while this process lives.
func (n *NS) Path() string {
	if n.path != "" {
		return n.path
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// FD is a descriptor of the namespace, good until Close (netlink wants one to move a link).
func (n *NS) FD() int { return int(n.file.Fd()) }

// Do runs f in the namespace as the package's Do does.
func (n *NS) Do(f func() error) error { return Do(n.Path(), f) }

// Close lets go of the namespace: it ends as soon as no process and no socket is in it.
func (n *NS) Close() error {
	errs := []error{n.file.Close()}
	if n.path != "" {
		if err := unix.Unmount(n.path, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", n.path, err))
		}
		errs = append(errs, os.Remove(n.path))
	}
	return errors.Join(errs...)
}

// loopbackUp sets lo up in the thread's network namespace, through netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for lo: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name lo: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("read flags of lo: %w", err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
