package wg_test

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/wireguard"
)

// at is the host and a peer's lease as they are with other ports; the device is one that stands in.
func (h *host) at(v4, v6 uint16, peer api.Lease, standIn bool) netstate.State {
	before := h.options
	defer func() { h.options = before }()
	h.options.ListenPort, h.options.ListenPortV6, h.options.StandIn, h.options.StandInV6 = v4, v6, standIn, standIn
	peer.WGPort, peer.WGPortV6 = wireguard.Ports(h.options)
	return h.plan([]api.Lease{peer})
}

// receives is the part of a plan that sends nothing.
func receives(s netstate.State) netstate.State {
	return s.Select(func(o netstate.Object) bool { return o.Kind() != netstate.KindRoute })
}

// bring has the state on the host, in the order of the agent's steps.
func (h *host) bring(want netstate.State) {
	h.t.Helper()
	h.want = want
	must(h.t, h.ns.Do(func() error { return h.engine.Prepare(want) }))
	must(h.t, h.ns.Do(func() error { return h.engine.Apply(want) }))
	h.converge(want)
	must(h.t, h.ns.Do(func() error { return h.engine.Apply(want) }))
}

// stream sends a datagram each millisecond from one pod to another until the function it returns is called, which counts.
func stream(t *testing.T, from, to *host, a netip.Addr) (stop func() (sent, lost int64)) {
	t.Helper()
	var in net.PacketConn
	must(t, to.pod.Do(func() (err error) {
		in, err = net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
		return err
	}))
	out, err := dial(from.pod, in.LocalAddr())
	must(t, err)
	var got atomic.Int64
	go func() {
		for buf := make([]byte, 8); ; got.Add(1) {
			if _, _, err := in.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	end, done := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		n := int64(0)
		for ; ; n++ {
			select {
			case <-end:
				done <- n
				return
			case <-tick.C:
				if _, err := out.Write([]byte("datagram")); err != nil {
					n--
				}
			}
		}
	}()
	return func() (int64, int64) {
		close(end)
		sent := <-done
		for deadline := time.Now().Add(time.Second); got.Load() < sent && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		_, _ = out.Close(), in.Close()
		return sent, sent - got.Load()
	}
}

func (h *host) port(dev string) (port uint16) {
	must(h.t, h.ns.Do(func() error { port = h.engine.Port(dev); return nil }))
	return port
}

// TestPortChange goes from two ports to two others and to the first ones again, while pods of both families send in both directions: a second
// device gets sessions, then the routes, then the first one's name.
func TestPortChange(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	transfer(t, a.pod, b.pod, b.v6, 1000)
	var stops []func() (int64, int64)
	for _, s := range []struct {
		from, to *host
		a        netip.Addr
	}{{a, b, b.podV4}, {b, a, a.podV4}, {a, b, b.v6}, {b, a, a.v6}} {
		stops = append(stops, stream(t, s.from, s.to, s.a))
	}
	pairs := []struct {
		h, peer *host
		begins  bool
	}{{a, b, true}, {b, a, false}}
	standIns := []string{wireguard.StandIn, wireguard.StandInV6}
	old4, old6 := uint16(wireguard.DefaultPort), uint16(wireguard.DefaultPortV6)
	for _, next := range [][2]uint16{{7000, 7001}, {51820, 51821}} {
		for _, p := range pairs { // prepare
			if p.begins {
				p.h.options.Keepalive = 25
			}
			more := receives(p.h.at(next[0], next[1], p.peer.lease, true))
			p.h.options.Keepalive = 0
			p.h.bring(netstate.Union(p.h.at(old4, old6, p.peer.lease, false), more))
		}
		for _, p := range pairs {
			meets(t, p.h, standIns)
		}
		for _, p := range pairs { // put in force
			p.h.bring(netstate.Union(receives(p.h.at(old4, old6, p.peer.lease, false)), p.h.at(next[0], next[1], p.peer.lease, true)))
		}
		time.Sleep(20 * time.Millisecond) // what is under way
		for _, p := range pairs {
			p.h.succeed()
			if n := p.h.apply(leaseAt(p.peer.lease, &p.h.options, next)); n != 0 {
				t.Errorf("%s: %d ops after the devices got their names, want none", p.h.name, n)
			}
			if v4, v6 := p.h.port(wireguard.Device), p.h.port(wireguard.DeviceV6); v4 != next[0] || v6 != next[1] || p.h.port(wireguard.StandIn) != 0 {
				t.Errorf("%s listens at %d and %d, want %v", p.h.name, v4, v6, next)
			}
		}
		old4, old6 = next[0], next[1]
	}
	for i, stop := range stops {
		if sent, lost := stop(); lost != 0 || sent < 50 {
			t.Errorf("stream %d: %d of %d lost", i, lost, sent)
		}
	}
}

// leaseAt gives the host the ports for good, and returns the peer's lease with them.
func leaseAt(peer api.Lease, o *overlay.Options, ports [2]uint16) api.Lease {
	o.ListenPort, o.ListenPortV6 = ports[0], ports[1]
	peer.WGPort, peer.WGPortV6 = ports[0], ports[1]
	return peer
}

// meets waits for sessions by the devices.
func meets(t *testing.T, h *host, devices []string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		must(t, h.ns.Do(func() (err error) { n, err = h.engine.Unmet(h.want, devices); return err }))
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d peers without a session", h.name, n)
		}
	}
}

// succeed gives the devices that stand in the names they are to have.
func (h *host) succeed() {
	h.t.Helper()
	ctx := context.Background()
	for _, from := range []string{wireguard.StandIn, wireguard.StandInV6} {
		to, _ := wireguard.StandsIn(from)
		h.engine.LetGo(to)
		l, ok, err := h.kernel.Link(ctx, to)
		must(h.t, err)
		if !ok {
			h.t.Fatalf("%s: no %s", h.name, to)
		}
		must(h.t, h.kernel.Apply(ctx, []netstate.Op{{Verb: netstate.Del, Object: l}}))
		must(h.t, h.kernel.Rename(ctx, from, to))
		h.engine.Renamed(from, to)
	}
}
