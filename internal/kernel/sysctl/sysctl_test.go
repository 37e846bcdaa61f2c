package sysctl_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

func TestReadApply(t *testing.T) {
	netns.Need(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	want := netstate.New(
		netstate.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"},
		netstate.Sysctl{Name: "net/ipv4/conf/lo/rp_filter", Value: "2"},
		netstate.Sysctl{Name: "net/ipv4/ip_local_port_range", Value: "40000 50000"},
		netstate.Sysctl{Name: "net/ipv4/conf/none/rp_filter", Value: "1"},
	)
	err = ns.Do(func() error {
		have, err := sysctl.Read(want)
		if err != nil {
			return err
		}
		err = sysctl.Apply(netstate.Diff(want, have))
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "net/ipv4/conf/none/rp_filter=1") {
			t.Errorf("a parameter that is not there: %v", err)
		}
		want.Remove(netstate.ID{Kind: netstate.KindSysctl, Key: "net/ipv4/conf/none/rp_filter"})
		have, err = sysctl.Read(want)
		if err != nil {
			return err
		}
		if ops := netstate.Diff(want, have); len(ops) > 0 {
			t.Errorf("left to do: %v", ops)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// The caller's own namespace is another one.
	if v, err := sysctl.Get("net/ipv4/ip_local_port_range"); err != nil || v == "40000 50000" {
		t.Errorf("here: %q, %v", v, err)
	}
}

func TestRefusals(t *testing.T) {
	netns.Need(t)
	for _, c := range []struct {
		s    netstate.Sysctl
		want string
	}{
		{netstate.Sysctl{Name: "../self/comm", Value: "x"}, "below /proc/sys"},
		{netstate.Sysctl{Name: "/proc/self/comm", Value: "x"}, "below /proc/sys"},
		{netstate.Sysctl{Name: "net/ipv4/ip_forward", Value: "many"}, "net/ipv4/ip_forward=many"},
		{netstate.Sysctl{Name: "net/ipv4/nothing", Value: "1"}, "net/ipv4/nothing"},
	} {
		err := sysctl.Apply([]netstate.Op{{Object: c.s}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to say %q", c.s, err, c.want)
		}
	}
	if err := sysctl.Apply([]netstate.Op{{Object: netstate.Addr{}}}); err == nil {
		t.Error("an address was taken for a sysctl")
	}
	if err := sysctl.Apply([]netstate.Op{{Verb: netstate.Del, Object: netstate.Sysctl{Name: "net/ipv4/nothing", Value: "1"}}}); err != nil {
		t.Errorf("deletion: %v", err)
	}
	for name, want := range map[string]bool{"net/ipv4": true, "net/ipv4/ip_forward": true, "net/none": false, "../self": false} {
		if sysctl.Exists(name) != want {
			t.Errorf("Exists(%s) = %v", name, !want)
		}
	}
}

// TestRaise: a parameter only grows.
func TestRaise(t *testing.T) {
	netns.Need(t)
	const name = "net/ipv4/tcp_fin_timeout"
	was, _, err := sysctl.Raise(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		to, was int
		raised  bool
	}{{was + 5, was, true}, {was + 5, was + 5, false}, {was, was + 5, false}} {
		if now, raised, err := sysctl.Raise(name, x.to); now != x.was || raised != x.raised || err != nil {
			t.Errorf("to %d: was %d, raised %v, %v; want %d, %v", x.to, now, raised, err, x.was, x.raised)
		}
	}
	if text, err := sysctl.Get(name); err != nil || text != strconv.Itoa(was+5) {
		t.Errorf("in the end %s, %v", text, err)
	}
	if _, _, err := sysctl.Raise("net/ipv4/tcp_rmem", 1); err == nil || !strings.Contains(err.Error(), "tcp_rmem") {
		t.Errorf("three numbers were taken for one: %v", err)
	}
}
