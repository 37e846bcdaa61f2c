package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// downGrace bounds how long a lab may take to end before it is killed; killing it takes another second.
const downGrace = stopGrace + 3*time.Second

// Down ends the lab and removes its files. A lab that is down already is no error.
func (l *Lab) Down() error {
	if l.lease != nil {
		defer l.lease.Close() // not before: the supervisor would take its end for a crash of ours
	}
	_, err := down(l.dir)
	if err != nil {
		return fmt.Errorf("take down lab %s: %w", l.info.Name, err)
	}
	return nil
}

// Down ends the lab of that name, or removes what a crashed one left. It says whether there was anything.
func Down(name string) (bool, error) {
	dir, err := stateDir(name)
	if err != nil {
		return false, err
	}
	was, err := down(dir)
	if err != nil {
		return was, fmt.Errorf("take down lab %s: %w", name, err)
	}
	return was, nil
}

func down(dir string) (bool, error) {
	f, err := lock(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, ErrUp):
		if err := end(dir); err != nil {
			return true, err
		}
		if f, err = lock(dir); errors.Is(err, fs.ErrNotExist) {
			return true, nil // the supervisor or another down was faster
		}
	}
	if err != nil {
		return true, err
	}
	defer f.Close()
	return true, removeState(dir)
}

// end makes the supervisor of a locked state directory end: SIGTERM, then SIGKILL.
func end(dir string) error {
	pid, err := readPID(dir)
	if err != nil {
		return fmt.Errorf("%w (is it just starting?)", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open supervisor %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	// The process of that number is the supervisor only if the lock was held after we had hold of the process.
	if f, err := lock(dir); err == nil {
		return f.Close()
	}
	for _, step := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, downGrace}, {unix.SIGKILL, 5 * time.Second}} {
		if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end supervisor %d: %w", pid, err)
		}
		if ended(fd, step.wait) {
			return nil
		}
	}
	return fmt.Errorf("supervisor %d does not end", pid)
}

// ended waits until the process of a pidfd has ended. As it is PID 1 of the lab, nothing of the lab lives then.
func ended(fd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(left, 0).Milliseconds()))
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) || left <= 0 {
			return false
		}
	}
}

// Entry is a lab in a list.
type Entry struct {
	Name    string `json:"name"`
	Crashed bool   `json:"crashed,omitempty"`
}

// List returns this user's labs.
func List() ([]Entry, error) {
	dirs, err := os.ReadDir(baseDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var labs []Entry
	for _, d := range dirs {
		f, err := lock(filepath.Join(baseDir(), d.Name()))
		if err == nil {
			_ = f.Close()
		}
		labs = append(labs, Entry{Name: d.Name(), Crashed: err == nil})
	}
	return labs, nil
}
