// Package file follows the content of one file: a configuration that somebody replaces while it is in use, also by swapping a symbolic
// link in its path, as the kubelet does for mounted ConfigMaps.
//
// Floor 3, edges.
package file

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Times of Follow.
const (
	// settle is waited after an event: who replaces a file does more than one thing.
	settle = 20 * time.Millisecond
	// Poll is how often the file is looked at though nothing was said of it: events of what a link leads to are not seen.
	Poll = 5 * time.Second
)

// maxSize bounds what is read, in bytes.
const maxSize = 1 << 20

// Read reads the file, at most a mebibyte.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("read configuration: %s is larger than %d bytes", path, maxSize)
	}
	return data, nil
}

// Follow calls to with the file's content whenever it is another than before, first than have, and with an error whenever that is
// another one, until ctx ends. A change is noticed within some tens of milliseconds, or after Poll where the file system says nothing.
func Follow(ctx context.Context, path string, have []byte, to func(data []byte, err error)) error {
	events, err := watch(ctx, filepath.Dir(path))
	if err != nil {
		return err
	}
	tick := time.NewTicker(Poll)
	defer tick.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if now, err := Read(path); err == nil && failed == "" && bytes.Equal(now, have) {
				continue // else somebody may be writing it
			}
		case <-events:
		}
		if !pause(ctx, settle) {
			return nil
		}
		data, err := Read(path)
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			to(nil, err)
		case err == nil && (failed != "" || !bytes.Equal(data, have)):
			failed, have = "", data
			to(data, nil)
		}
	}
}

// pause waits, and reports false when ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// watch pokes its channel when an entry of the directory changes (inotify(7)).
func watch(ctx context.Context, dir string) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	const mask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	context.AfterFunc(ctx, func() { _ = f.Close() })
	out := make(chan struct{}, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return // closed
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, nil
}
