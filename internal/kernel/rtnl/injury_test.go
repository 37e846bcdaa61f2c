package rtnl_test

import (
	"context"
	"testing"
	"time"

	"weft/internal/kernel/rtnl"
	"weft/internal/netstate"
	"weft/internal/overlay/vxlan"
)

// TestInjuries: what events alone say must be repaired is what a Read would say.
func TestInjuries(t *testing.T) {
	w, _ := node(t)
	want := vxlan.Backend{}.Plan(self(true), leases(3))
	ch := w.watch(want)
	quiet := func() { // until what the kernel says late of our own changes is over
		for range 50 {
			w.converge(want)
			drain(ch)
			if list, _, whole := w.h.Injuries(); !whole && len(list) == 0 {
				return
			}
		}
		t.Fatal("events without an end")
	}
	quiet()
	for _, c := range []struct {
		line  string
		whole bool
	}{
		{"ip route del 10.0.1.0/24", false},
		{"ip route replace 10.0.1.0/24 via 172.17.0.9 dev eth0", false},
		{"ip route replace blackhole 10.0.2.0/24", false},
		{"ip route add blackhole 10.98.0.0/16 table 77 proto 119", false},
		{"ip neigh del 10.0.1.0 dev flannel.1", false},
		{"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent", false},
		{"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud stale", false},
		{"bridge fdb del 02:00:00:00:00:01 dev flannel.1 dst 172.17.0.1", false},
		{"bridge fdb replace 02:00:00:00:00:01 dev flannel.1 dst 172.17.9.9 self permanent", false},
		{"ip route append 10.0.1.0/24 via 172.17.0.9 dev eth0", true},
		{"ip link set flannel.1 down", true},
		{"ip addr flush dev flannel.1", true},
		{"ip link del flannel.1", true},
	} {
		var list []rtnl.Injury
		var ops []netstate.Op
		var whole bool
		// On a busy machine the kernel says up to seconds later that a link of the underlay came up, or got its link-local address: that asks for
		// a whole look, and says nothing against the event in question.
		for range 3 {
			if err := w.run(c.line); err != nil {
				t.Fatalf("%s: %v", c.line, err)
			}
			if !fired(ch, 30*time.Second) {
				t.Errorf("%s: no event", c.line)
			}
			if list, ops, whole = w.h.Injuries(); whole == c.whole || !whole {
				break
			}
			quiet()
		}
		if whole != c.whole {
			t.Errorf("%s: whole %v, list %v", c.line, whole, list)
		}
		if !whole {
			if len(list) == 0 || len(ops) == 0 || list[0].By == "" && list[0].ID.Kind != netstate.KindFDB {
				t.Errorf("%s: list %v, ops %v", c.line, list, ops)
			}
			w.must(w.h.Apply(context.Background(), ops))
			if left := netstate.Diff(want, w.read(want)); len(left) > 0 {
				t.Errorf("%s: after %v is left: %v", c.line, ops, left)
			}
		}
		quiet()
		w.settled(want)
	}
}

// BenchmarkHealOne is BenchmarkHeal by the event alone.
func BenchmarkHealOne(b *testing.B) {
	w := benchWorld(b)
	want := vxlan.Backend{}.Plan(self(false), leases(many))
	ch := w.watch(want)
	drain(ch)
	quiet := func() {
		for range 50 { // what is said late of the programming is known then
			w.converge(want)
			drain(ch)
			if list, _, whole := w.h.Injuries(); !whole && len(list) == 0 {
				return
			}
		}
		b.Fatal("events without an end")
	}
	quiet()
	routes := netstate.Of[netstate.Route](want)
	i, wholes := 0, 0
	for b.Loop() {
		b.StopTimer() // the route is gone when ip(8) ends
		w.must(w.run("ip route del " + routes[i%len(routes)].Dst.String()))
		b.StartTimer()
		if !fired(ch, 30*time.Second) {
			b.Fatal("no event")
		}
		_, ops, whole := w.h.Injuries()
		i++
		if whole { // something else happened too, of which the kernel told late: it costs what a whole look costs
			if wholes++; wholes > 3 {
				b.Fatalf("%d of %d routes took a look at everything", wholes, i)
			}
			quiet()
			continue
		}
		if len(ops) != 1 {
			b.Fatal(ops)
		}
		w.must(w.h.Apply(context.Background(), ops))
	}
	b.ReportMetric(float64(wholes)/float64(i), "whole-looks/op")
}
