package rtnl_test

import (
	"context"
	"testing"
	"time"

	"weft/internal/kernel/rtnl"
	"weft/internal/netstate"
	"weft/internal/overlay/vxlan"
)

// watch subscribes and reads, as a loop does.
func (w *world) watch(want netstate.State) <-chan struct{} {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	var ch <-chan struct{}
	w.must(w.ns.Do(func() (err error) {
		ch, err = w.h.Watch(ctx)
		return err
	}))
	w.converge(want)
	w.converge(want)
	return ch
}

func drain(ch <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-time.After(20 * time.Millisecond):
			return
		}
	}
}

func fired(ch <-chan struct{}, within time.Duration) bool {
	select {
	case _, ok := <-ch:
		return ok
	case <-time.After(within):
		return false
	}
}

// quiet does what no event shall follow. The kernel may say late what was done before, but not each time.
func (w *world) quiet(ch <-chan struct{}, what string, do func()) {
	w.t.Helper()
	for range 5 {
		do()
		if !fired(ch, 50*time.Millisecond) {
			return
		}
		drain(ch)
	}
	w.t.Error("an event for " + what)
}

func TestWatch(t *testing.T) {
	w, _ := node(t)
	want := vxlan.Backend{}.Plan(self(true), leases(3))
	ch := w.watch(want)
	drain(ch)
	for _, o := range want.Objects() {
		if o.Kind() == netstate.KindSysctl {
			continue
		}
		w.ip(netstate.Op{Verb: netstate.Del, Object: o}.Commands()...)
		if !fired(ch, 30*time.Second) {
			t.Errorf("no event for the theft of %s", o)
		}
		for range 3 {
			w.converge(want)
		}
		drain(ch)
		w.settled(want)
	}
	for _, line := range []string{
		"ip link set flannel.1 mtu 1400",
		"ip link set flannel.1 down",
		"ip link set flannel.1 alias mine",
		"ip link set flannel.1 type vxlan id 1 local 172.17.0.77 dev eth0",
		"ip link set flannel.1 type vxlan id 1 dev eth0 learning",
		"ip link set eth0 mtu 1400",
		"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
		"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud stale",
		"bridge fdb replace 02:00:00:00:00:01 dev flannel.1 dst 172.17.9.9 self permanent",
		"ip route replace 10.0.1.0/24 via 172.17.0.9 dev eth0",
		"ip addr add 10.99.0.1/32 dev flannel.1",
		"ip route add blackhole 10.98.0.0/16 table 77 proto 119",
	} {
		w.ip(line)
		if !fired(ch, 30*time.Second) {
			t.Errorf("no event for %s", line)
		}
		for range 3 {
			w.converge(want)
		}
		drain(ch)
	}
}

// TestWatchIsQuiet does what is none of our business, and what we do ourselves.
func TestWatchIsQuiet(t *testing.T) {
	w, _ := node(t)
	want := vxlan.Backend{}.Plan(self(true), leases(3))
	ch := w.watch(want)
	drain(ch)
	w.quiet(ch, "what others do with their own", func() {
		w.ip(
			"ip link add other type bridge", "ip link set other up", "ip addr add 192.0.2.1/24 dev other", "ip link del other",
			"ip route add 198.51.100.0/24 via 172.17.0.9", "ip route del 198.51.100.0/24",
			"ip neigh add 172.17.0.77 lladdr 02:00:00:00:00:01 dev eth0", "ip neigh del 172.17.0.77 dev eth0",
			"ip route add 10.0.1.0/24 via 172.17.0.9 dev eth0 metric 50", "ip route del 10.0.1.0/24 metric 50",
		)
	})
	more := vxlan.Backend{}.Plan(self(true), leases(200))
	first, second := netstate.Diff(more, want), netstate.Diff(want, more)
	w.quiet(ch, "our own changes, there", func() { w.converge(want); w.must(w.apply(first)) })
	w.quiet(ch, "our own changes, back", func() { w.converge(more); w.must(w.apply(second)) })
}

func TestWatchEnds(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	var ch <-chan struct{}
	w.must(w.ns.Do(func() (err error) {
		ch, err = w.h.Watch(ctx)
		return err
	}))
	cancel()
	select {
	case _, ok := <-ch:
		if ok {
			t.Error("an event at the end")
		}
	case <-time.After(30 * time.Second):
		t.Error("channel is not closed when the context ends")
	}
}

// TestWatchOverflow makes more events than the socket holds while nobody reads them.
func TestWatchOverflow(t *testing.T) {
	w, _ := node(t)
	want := vxlan.Backend{}.Plan(self(false), leases(1))
	ch := w.watch(want)
	drain(ch)
	w.h.Block(func() {
		churn := rtnl.Churn(t, w.ns.Path(), 40000)
		t.Logf("%d events", churn)
	})
	if !fired(ch, 30*time.Second) {
		t.Error("no event after an overflow")
	}
}
