package network

import (
	"net/netip"
	"testing"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/lease"
	"weft/internal/overlay"
)

// TestMoves: whatever the changes of the port before, and whichever of them the node has seen, a device goes on under the name the plan has
// for its port.
func TestMoves(t *testing.T) {
	const p, q, r = 51820, 7000, 7001
	for _, c := range []struct {
		name       string
		have, want pair
		move       move
	}{
		{"nothing changes", pair{p, 0}, pair{p, 0}, stay},
		{"preparing", pair{p, 0}, pair{p, q}, stay},
		{"prepared", pair{p, q}, pair{p, q}, stay},
		{"in force, and what was before goes", pair{p, q}, pair{q, 0}, succeed},
		{"undone while it is prepared", pair{p, q}, pair{p, 0}, stay},
		{"back while the old one is left", pair{p, q}, pair{q, p}, swap},
		{"on to a third one while the old one is left", pair{p, q}, pair{q, r}, succeed},
		{"nobody prepared it, and the old one is left", pair{p, 0}, pair{p, q}, stay},
		{"there and half the way back, seen at once", pair{p, 0}, pair{q, p}, yield},
		{"written at once", pair{p, 0}, pair{q, 0}, stay},
		{"no peers", pair{p, q}, pair{0, 0}, stay},
		{"the IPv6 device of another mode is new", pair{0, q}, pair{q, 0}, succeed},
		{"nothing is there yet", pair{0, 0}, pair{p, q}, stay},
	} {
		if got := moveOf(c.have, c.want); got != c.move {
			t.Errorf("%s: have %v, want %v: %d, want %d", c.name, c.have, c.want, got, c.move)
		}
	}
}

// TestPortIsLeftSlowly: the device at the old port stays for a moment after the change, unless nobody sent there.
func TestPortIsLeftSlowly(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(port uint16, other uint16, next bool) facts.Setting {
		s := facts.Setting{Facts: facts.Facts{Backend: lease.WireGuard, Options: overlay.Options{ListenPort: port}}}
		if other != 0 {
			s.Other = &facts.OtherBackend{Backend: lease.WireGuard, Options: overlay.Options{ListenPort: other}, Next: next, Change: "x"}
		}
		s.Network = netip.MustParsePrefix("10.5.0.0/16")
		return s
	}
	after := func(before facts.Setting, wait time.Duration) *facts.OtherBackend {
		d := &Loop{again: make(chan struct{}, 1)}
		d.told.setting = before
		s := at(7000, 0, false)
		d.left(now, s)
		d.left(now.Add(wait/2), s) // a step that failed is repeated
		return d.besides(now.Add(wait), s.Facts).Other
	}
	if o := after(at(7000, 51820, false), emptied-1); o == nil || !o.Left || o.Options.ListenPort != 51820 {
		t.Errorf("at once: %+v", o)
	}
	if o := after(at(7000, 51820, false), emptied); o != nil {
		t.Errorf("later: %+v", o)
	}
	if o := after(at(7000, 51820, true), 0); o != nil {
		t.Errorf("what was prepared and given up: %+v", o)
	}
	if o := after(at(51820, 0, false), 0); o != nil {
		t.Errorf("written at once: %+v", o)
	}
}
