package file_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/store/file"
)

type told struct {
	data string
	err  error
}

func follow(t *testing.T, path, have string) <-chan told {
	t.Helper()
	ch := make(chan told, 16)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(done)
		close(ready)
		if err := file.Follow(ctx, path, []byte(have), func(data []byte, err error) { ch <- told{string(data), err} }); err != nil {
			t.Error(err)
		}
	}()
	<-ready
	time.Sleep(20 * time.Millisecond) // until it watches; what it misses the poll finds
	t.Cleanup(func() { stop(); <-done })
	return ch
}

func next(t *testing.T, ch <-chan told) told {
	t.Helper()
	select {
	case x := <-ch:
		return x
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was said")
		return told{}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestConfigMap: the kubelet's way: the file is a link through ..data, which is replaced by rename.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	put := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "net-conf.json"), text)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("..1", "one")
	path := filepath.Join(dir, "net-conf.json")
	if err := os.Symlink("..data/net-conf.json", path); err != nil {
		t.Fatal(err)
	}
	have := "one"
	ch := follow(t, path, have)
	soonest := time.Hour
	for i := 0; i < 5 && soonest > file.Poll/2; i++ { // the poll may come first, or the machine stand still, but not each time
		begun := time.Now()
		text := strings.Repeat("two", i+1)
		put(fmt.Sprint("..2", i), text)
		if x := next(t, ch); x.data != text || x.err != nil {
			t.Fatalf("got %+v", x)
		}
		soonest = min(soonest, time.Since(begun))
		have = text
	}
	if soonest > file.Poll/2 {
		t.Errorf("it took %s: not the event but the poll", soonest)
	}
	put("..3", have) // nothing new
	put("..4", "three")
	if x := next(t, ch); x.data != "three" {
		t.Fatalf("got %+v", x)
	}
}

// TestGoneAndBack: a missing file is said once, its return too; in-place writes count as well.
func TestGoneAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net-conf.json")
	write(t, path, "one")
	ch := follow(t, path, "one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if x := next(t, ch); !errors.Is(x.err, fs.ErrNotExist) {
		t.Fatalf("got %+v", x)
	}
	// A file that is written in place may be read half written.
	write(t, path, "one")
	for next(t, ch).data != "one" {
		continue
	}
	write(t, path, strings.Repeat("x", 1<<20+1))
	for x := next(t, ch); x.err == nil || !strings.Contains(x.err.Error(), "larger than"); x = next(t, ch) {
		if x.err != nil {
			t.Fatalf("got %+v", x)
		}
	}
}

func TestNoDirectory(t *testing.T) {
	if err := file.Follow(t.Context(), "/none/net-conf.json", nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
