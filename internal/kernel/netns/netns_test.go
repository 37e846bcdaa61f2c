package netns_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"weft/internal/kernel/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// readID names the network namespace of the calling thread, well enough for a test's goroutine that stays in it.
func readID(t *testing.T) string {
	t.Helper()
	id, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestMainIsolates(t *testing.T) {
	netns.Need(t)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == "lo" && l.Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		if l.Flags&net.FlagLoopback == 0 && l.Flags&net.FlagUp != 0 {
			t.Errorf("interface %s of the host is visible", l.Name)
		}
	}
	if os.Getuid() != 0 {
		t.Errorf("uid is %d, want 0", os.Getuid())
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1\n"), 0); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile("/run/xtables.lock", nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestDo(t *testing.T) {
	netns.Need(t)
	for _, path := range []string{"", filepath.Join("/run/netns", "a")} {
		before := readID(t)
		ns, err := netns.New(path)
		if err != nil {
			t.Fatal(err)
		}
		var inside string
		err = netns.Do(ns.Path(), func() error {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if inside == before {
			t.Errorf("%q: function ran in the caller's namespace", path)
		}
		if now := readID(t); now != before {
			t.Errorf("%q: caller moved from %s to %s", path, before, now)
		}
		// The same port on the same address in both namespaces: two different hosts.
		l, err := net.Listen("tcp", "127.0.0.1:7777")
		if err != nil {
			t.Fatal(err)
		}
		err = ns.Do(func() error {
			other, err := net.Listen("tcp", "127.0.0.1:7777")
			if err != nil {
				return err
			}
			return other.Close()
		})
		if err != nil {
			t.Errorf("%q: %v", path, err)
		}
		_ = l.Close()
		if err := ns.Close(); err != nil {
			t.Errorf("%q: close: %v", path, err)
		}
		if path != "" {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", path, err)
			}
		}
	}
}

func TestDoErrors(t *testing.T) {
	netns.Need(t)
	if err := netns.Do("/run/netns/none", func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing path: %v", err)
	}
	if err := netns.Do("/proc/self/ns/uts", func() error { return nil }); err == nil {
		t.Error("a UTS namespace was taken for a network namespace")
	}
	want := errors.New("from f")
	if err := netns.Do("/proc/self/ns/net", func() error { return want }); !errors.Is(err, want) {
		t.Errorf("error of f is lost: %v", err)
	}
	ns, err := netns.New("/run/netns/b")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, err := netns.New("/run/netns/b"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a namespace was made over another: %v", err)
	}
}

func TestDoGoexit(t *testing.T) {
	netns.Need(t)
	before := readID(t)
	err := netns.Do("/proc/self/ns/net", func() error {
		runtime.Goexit() // what testing.T.FailNow does
		return nil
	})
	if err == nil {
		t.Error("a function that did not return counts as done")
	}
	if readID(t) != before {
		t.Error("caller moved")
	}
}
