package kernel_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel"
	"weft/internal/kernel/netns"
	"weft/internal/netstate"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

func TestNetns(t *testing.T) {
	netns.Need(t)
	ctx := t.Context()
	ns, err := netns.New("/run/netns/pod")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	k, err := kernel.Open("/run/netns/pod")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	changed, err := k.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bridge := netstate.Link{Name: "cni0", Type: netstate.TypeBridge, MTU: 1450, MAC: "02:42:00:00:00:01", Alias: "weft:bridge", Up: true}
	want := netstate.New(bridge,
		netstate.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"},
		netstate.Sysctl{Name: "net/ipv4/conf/cni0/rp_filter", Value: "2"}, // exists only once the bridge does
		netstate.Addr{Dev: "cni0", Prefix: netip.MustParsePrefix("172.16.28.1/24")},
	)
	converge := func() int {
		t.Helper()
		have, err := k.Read(ctx, want)
		if err != nil {
			t.Fatal(err)
		}
		ops := netstate.Diff(want, have)
		if err := k.Apply(ctx, ops); err != nil {
			t.Fatal(err)
		}
		return len(ops)
	}
	if n := converge(); n != 4 {
		t.Errorf("%d ops from empty, want 4", n)
	}
	if n := converge(); n != 0 {
		t.Errorf("%d ops the second time", n)
	}
	other, err := kernel.Open("/run/netns/pod")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Apply(ctx, []netstate.Op{{Verb: netstate.Del, Object: bridge}}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Error("no event when the bridge was stolen")
	}
	if n := converge(); n != 3 { // ip_forward was not the bridge's
		t.Errorf("%d ops after theft of the bridge, want 3", n)
	}
	if l, ok, err := k.Link(ctx, "cni0"); err != nil || !ok || l.MAC != bridge.MAC {
		t.Errorf("link %v, %v, %v", l, ok, err)
	}
	if _, ok, err := k.Link(ctx, "none"); err != nil || ok {
		t.Errorf("a link that is not there: %v, %v", ok, err)
	}
	err = k.Apply(ctx, []netstate.Op{
		{Object: netstate.Listener{Service: "a/b:", Protocol: "TCP"}},
		{Object: netstate.Sysctl{Name: "net/ipv4/ip_forward", Value: "0"}},
	})
	if err == nil || !strings.Contains(err.Error(), "a/b:") {
		t.Errorf("a listener was applied: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	netns.Need(t)
	if _, err := kernel.Open("/run/netns/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a namespace that is not there: %v", err)
	}
	k, err := kernel.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Read(context.Background(), netstate.New()); err != nil {
		t.Error(err)
	}
}
