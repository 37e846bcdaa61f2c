package network

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/runtime"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

func TestRepairedNamesWhatThePlanDidNotChange(t *testing.T) {
	route := func(dst, via string) netstate.Route {
		return netstate.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Dev: "eth0"}
	}
	a, b, b2, foreign := route("10.0.1.0/24", "10.0.0.1"), route("10.0.2.0/24", "10.0.0.2"), route("10.0.2.0/24", "10.0.0.3"), route("10.9.0.0/24", "10.0.0.9")
	before, want := netstate.New(a, b), netstate.New(a, b2)
	ops := netstate.Diff(want, netstate.New(b, foreign))
	got := repaired(ops, want, before)
	slices.Sort(got)
	if len(got) != 2 || got[0] != nameOf(a) || got[1] != nameOf(foreign) {
		t.Errorf("repaired: %v", got)
	}
}

// TestLingeringKinds: of two kinds with one VNI the later one is kept, always, and one that a change led away from is not.
func TestLingeringKinds(t *testing.T) {
	d := &Loop{kinds: map[ways.Kind]time.Time{}}
	now := time.Unix(1000, 0)
	a, b, c := ways.Kind{Type: lease.VXLAN, VNI: 1, Port: 8472}, ways.Kind{Type: lease.VXLAN, VNI: 1, Port: 4789}, ways.Kind{Type: lease.HostGW}
	for i, k := range []ways.Kind{a, b, c} {
		d.remember(now.Add(time.Duration(i)*time.Second), []ways.Way{{Kind: k}})
	}
	for range 20 {
		if keep := d.remember(now.Add(3*time.Second), []ways.Way{{Kind: c}}); !slices.Equal(keep, []ways.Kind{b, a}) {
			t.Fatalf("kept: %v", keep)
		}
	}
	d.told.setting.Other = &facts.OtherBackend{Backend: lease.VXLAN, Options: overlay.Options{VNI: 1, Port: 4789}}
	s := facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)}
	s.Backend = lease.HostGW
	d.left(now.Add(3*time.Second), s, api.Lease{})
	if keep := d.remember(now.Add(3*time.Second), []ways.Way{{Kind: c}}); !slices.Equal(keep, []ways.Kind{a}) {
		t.Errorf("kept after a change was finished: %v", keep)
	}
}

// TestNoAddressInDoubt: what speaks against it is what the runtime is told.
func TestNoAddressInDoubt(t *testing.T) {
	doubt := errors.New("the lease is another's")
	d := &Loop{leases: &agenttest.Journal{Self: agenttest.Peer("172.17.42.31", "172.16.28.0/24")}, mayAttach: func() error { return doubt }}
	if _, err := d.Attach(t.Context(), runtime.SandboxStatus{}); !errors.Is(err, doubt) {
		t.Errorf("got %v", err)
	}
}
