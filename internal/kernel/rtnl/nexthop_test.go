package rtnl_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/netstate"
	"weft/internal/overlay/vxlan"
)

// show returns what a command prints in the namespace.
func (w *world) show(line string) string {
	w.t.Helper()
	var text []byte
	w.must(w.ns.Do(func() (err error) {
		args := strings.Fields(line)
		text, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	}))
	return string(text)
}

// TestNexthops: the routes of tunnels name a next hop object each, nobody sees it in the plan, and it goes with its route.
func TestNexthops(t *testing.T) {
	w := newWorld(t)
	w.ip("ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up", "ip addr add 172.17.200.1/16 dev eth0")
	want := vxlan.Backend{}.Plan(self(false), leases(3))
	w.converge(want)
	w.settled(want)
	objects := func() int { return strings.Count(w.show("ip nexthop show proto 119"), "id ") }
	if n := objects(); n != 3 {
		t.Fatalf("%d next hop objects for 3 routes:\n%s", n, w.show("ip -d nexthop"))
	}
	routes := w.show("ip route show proto 119")
	for _, r := range netstate.Of[netstate.Route](want) {
		if text := fmt.Sprintf("%s nhid ", r.Dst); !strings.Contains(routes, text) || !strings.Contains(routes, " via "+r.Via.String()+" dev flannel.1 onlink") {
			t.Errorf("no %q in\n%s", text, routes)
		}
	}

	// A gateway that changes, a route that somebody made a plain one, and one that goes.
	r := netstate.Of[netstate.Route](want)
	moved := netstate.Union(want)
	changed := r[0]
	changed.Via = netip.MustParseAddr("10.99.0.1")
	moved.Add(changed)
	moved.Remove(netstate.IDOf(r[2]))
	w.ip(fmt.Sprintf("ip route replace %s via %s dev flannel.1 onlink proto 119", r[1].Dst, r[1].Via))
	w.converge(moved)
	w.settled(moved)
	w.ip(fmt.Sprintf("ip route replace %s via %s dev flannel.1 onlink proto 119", r[0].Dst, r[0].Via))
	w.converge(netstate.Union(moved, netstate.New(r[0])))
	if n := objects(); n != 2 {
		t.Errorf("%d next hop objects for 2 routes:\n%s", n, w.show("ip -d nexthop"))
	}
	moved.Remove(netstate.IDOf(r[1])) // the plain one
	moved.Add(r[0])
	w.converge(moved)
	w.settled(moved)
	if n := objects(); n != 1 {
		t.Errorf("%d next hop objects for 1 route:\n%s", n, w.show("ip -d nexthop"))
	}
}

// TestNexthopTaken: who deletes a next hop object takes its route along without a word about that.
func TestNexthopTaken(t *testing.T) {
	w := newWorld(t)
	w.ip("ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up", "ip addr add 172.17.200.1/16 dev eth0")
	want := vxlan.Backend{}.Plan(self(false), leases(3))
	ch := w.watch(want)
	drain(ch)
	w.ip("ip nexthop flush proto 119")
	if !fired(ch, 30*time.Second) {
		t.Fatal("no event")
	}
	if n := w.converge(want); n != 3 {
		t.Errorf("%d ops for 3 routes", n)
	}
	w.settled(want)
}

// TestNexthopsDropped: routes that are given to others are plain ones, with no gap, and objects without a route go.
func TestNexthopsDropped(t *testing.T) {
	w := newWorld(t)
	w.ip("ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up", "ip addr add 172.17.200.1/16 dev eth0")
	want := vxlan.Backend{}.Plan(self(false), leases(3))
	w.converge(want)
	r := netstate.Of[netstate.Route](want)
	w.ip(fmt.Sprintf("ip route replace %s via %s dev flannel.1 onlink", r[0].Dst, r[0].Via)) // as flannel does
	given := netstate.Union(want)
	for _, o := range r {
		o.Proto = unix.RTPROT_BOOT
		given.Add(o)
	}
	w.converge(given)
	drop := func() int {
		n, err := w.h.DropNexthops(t.Context())
		w.must(err)
		return n
	}
	if n := drop(); n == 0 {
		t.Error("no object was left: nothing is tested")
	}
	if left := w.show("ip nexthop show"); left != "" {
		t.Errorf("left:\n%s", left)
	}
	if routes := w.show("ip route show"); strings.Count(routes, "dev flannel.1 onlink") != 3 || strings.Contains(routes, "proto 119") {
		t.Errorf("the routes are now:\n%s", routes)
	}
	if n := drop(); n != 0 {
		t.Errorf("%d more", n)
	}
}
