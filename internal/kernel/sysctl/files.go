package sysctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Files watches parameters by inotify(7): the kernel tells of each write to a file below /proc/sys, also of parameters that cause no event
// of netlink. It sees writes through the same mount of proc(5) or a bind of it, as nsenter(1), a shell and most containers of the host's
// network use, not through another mount of proc, and not what the kernel changes by itself: look at the values now and then all the same.
type Files struct {
	file *os.File
	ch   chan struct{}

	mu    sync.Mutex
	ended bool
	marks map[string]int32 // watch descriptors by parameter
}

// WatchFiles makes a Files of no parameters, which ends with ctx.
func WatchFiles(ctx context.Context) (*Files, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch parameters: inotify: %w", err)
	}
	f := &Files{file: os.NewFile(uintptr(fd), "inotify"), ch: make(chan struct{}, 1), marks: map[string]int32{}}
	stop := context.AfterFunc(ctx, f.end)
	go func() {
		defer close(f.ch)
		defer stop()
		b := make([]byte, 4<<10)
		for {
			if _, err := f.file.Read(b); err != nil {
				return
			}
			select {
			case f.ch <- struct{}{}:
			default:
			}
		}
	}()
	return f, nil
}

// end ends a read under way too.
func (f *Files) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	_ = f.file.Close()
}

// Changed receives, coalesced, after a write to one of the parameters, our own too. It is closed at the end.
func (f *Files) Changed() <-chan struct{} { return f.ch }

// Set makes the parameters those that are watched, by name; call it in their network namespace. A device that was made anew has new files,
// so call it after changes too. One that does not exist is left out.
func (f *Files) Set(names []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return nil
	}
	conn, err := f.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch parameters: %w", err)
	}
	cerr := conn.Control(func(fd uintptr) { err = f.mark(int(fd), names) })
	return errors.Join(cerr, err)
}

func (f *Files) mark(fd int, names []string) error {
	next := make(map[string]int32, len(names))
	used := make(map[int32]bool, len(names))
	var errs []error
	for _, name := range names {
		path, err := file(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		wd, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			errs = append(errs, fmt.Errorf("watch parameter %s: %w", name, err))
		default:
			next[name] = int32(wd)
			used[int32(wd)] = true
		}
	}
	for _, wd := range f.marks {
		if !used[wd] {
			used[wd] = true
			// The error says that it is gone, with its file.
			_, _ = unix.InotifyRmWatch(fd, uint32(wd))
		}
	}
	f.marks = next
	return errors.Join(errs...)
}
