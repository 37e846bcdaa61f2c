package rtnl_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weft/internal/netstate"
	"weft/internal/overlay/vxlan"
)

// many is the size of a large network.
const many = 5000

// benchWorld is a namespace with an underlay interface; the other end hangs in the air.
func benchWorld(b *testing.B) *world {
	w := newWorld(b)
	w.ip("ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up", "ip addr add 172.17.200.1/16 dev eth0")
	return w
}

// BenchmarkColdStart plans, reads, diffs and applies 5,000 leases into an empty kernel: 15,000 objects.
func BenchmarkColdStart(b *testing.B) {
	w := benchWorld(b)
	for b.Loop() {
		want := vxlan.Backend{}.Plan(self(false), leases(many))
		if n := w.converge(want); n != want.Len() {
			b.Fatal(n)
		}
		b.StopTimer()
		w.ip("ip link del flannel.1")
		b.StartTimer()
	}
}

// BenchmarkRestart plans, reads and diffs with everything in place.
func BenchmarkRestart(b *testing.B) {
	w := benchWorld(b)
	w.converge(vxlan.Backend{}.Plan(self(false), leases(many)))
	for b.Loop() {
		w.restart()
		want := vxlan.Backend{}.Plan(self(false), leases(many))
		if n := w.converge(want); n != 0 {
			b.Fatal(n)
		}
	}
}

// BenchmarkOneLease adds and removes one peer of 5,000 by the plan of that peer alone.
func BenchmarkOneLease(b *testing.B) {
	w := benchWorld(b)
	all := leases(many + 1)
	base := vxlan.Backend{}.Plan(self(false), all[:many])
	w.converge(base)
	w.read(base)
	one := vxlan.Backend{}.Peer(self(false), all[many])
	add, del := netstate.Diff(one, netstate.New()), netstate.Diff(netstate.New(), one)
	for b.Loop() {
		w.must(w.h.Apply(context.Background(), add))
		w.must(w.h.Apply(context.Background(), del))
	}
}

// BenchmarkColdStartNaive does the additions of a cold start with one acknowledged request each through vishvananda/netlink, as
// flannel does.
func BenchmarkColdStartNaive(b *testing.B) {
	w := benchWorld(b)
	want := vxlan.Backend{}.Plan(self(false), leases(many))
	base := vxlan.Backend{}.Base(self(false))
	for b.Loop() {
		b.StopTimer()
		w.converge(base)
		ops := netstate.Diff(want, base)
		b.StartTimer()
		w.must(w.ns.Do(func() error { return naive(ops) }))
		b.StopTimer()
		w.ip("ip link del flannel.1")
		b.StartTimer()
	}
}

func naive(ops []netstate.Op) error {
	dev, err := netlink.LinkByName("flannel.1")
	if err != nil {
		return err
	}
	index := dev.Attrs().Index
	for _, op := range ops {
		switch o := op.Object.(type) {
		case netstate.Neigh:
			mac, _ := net.ParseMAC(o.MAC)
			err = netlink.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: o.IP.AsSlice(), HardwareAddr: mac})
		case netstate.FDB:
			mac, _ := net.ParseMAC(o.MAC)
			err = netlink.NeighSet(&netlink.Neigh{
				LinkIndex: index, State: netlink.NUD_PERMANENT, Family: 7, Flags: netlink.NTF_SELF, IP: o.Dst.AsSlice(), HardwareAddr: mac,
			})
		case netstate.Route:
			err = netlink.RouteReplace(&netlink.Route{
				LinkIndex: index, Dst: &net.IPNet{IP: o.Dst.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}, Gw: o.Via.AsSlice(),
				Flags: int(netlink.FLAG_ONLINK), Protocol: netstate.RouteProtocol,
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkHeal takes a route away and waits until a loop of watch, read, diff and apply has it back, with 5,000 leases.
func BenchmarkHeal(b *testing.B) {
	w := benchWorld(b)
	want := vxlan.Backend{}.Plan(self(false), leases(many))
	ch := w.watch(want)
	drain(ch)
	routes := netstate.Of[netstate.Route](want)
	thief := &world{t: b, ns: w.ns}
	thief.restart()
	defer thief.h.Close()
	i := 0
	for b.Loop() {
		w.must(thief.h.Apply(context.Background(), []netstate.Op{{Verb: netstate.Del, Object: routes[i%len(routes)]}}))
		if !fired(ch, 30*time.Second) {
			b.Fatal("no event")
		}
		if n := w.converge(want); n != 1 {
			b.Fatal(n)
		}
		i++
	}
}
