package wg_test

import (
	"context"
	"encoding/binary"
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

// with is the plan of the host with a peer as both are under other options; the devices are those that stand in.
func (h *host) with(o overlay.Options, peer api.Lease, standIn bool) netstate.State {
	before := h.options
	defer func() { h.options = before }()
	h.options = o
	h.options.Userspace, h.options.StandIn, h.options.StandInV6 = true, standIn, standIn
	peer.WGPort, peer.WGPortV6 = wireguard.Ports(o)
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

// A stream is a numbered datagram every 4 ms, which a machine with other work can carry in user space too, from one pod to another.
type stream struct {
	sent      atomic.Int64 // their number
	got       atomic.Int64 // of them arrived
	whole     atomic.Int64 // all below this one arrived
	end, done chan struct{}
	close     func()
}

func newStream(t *testing.T, from, to *host, a netip.Addr) *stream {
	t.Helper()
	s := &stream{end: make(chan struct{}), done: make(chan struct{})}
	var in net.PacketConn
	must(t, to.pod.Do(func() (err error) {
		in, err = net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
		return err
	}))
	out, err := dial(from.pod, in.LocalAddr())
	must(t, err)
	s.close = func() { _, _ = out.Close(), in.Close() }
	go func() {
		early := map[int64]bool{}
		for buf := make([]byte, 8); ; {
			if _, _, err := in.ReadFrom(buf); err != nil {
				return
			}
			early[int64(binary.BigEndian.Uint64(buf))] = true
			s.got.Add(1)
			for n := s.whole.Load(); early[n]; n = s.whole.Add(1) {
				delete(early, n)
			}
		}
	}()
	go func() {
		defer close(s.done)
		tick := time.NewTicker(4 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.end:
				return
			case <-tick.C:
				n := s.sent.Load()
				if _, err := out.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err == nil {
					s.sent.Add(1)
				}
			}
		}
	}()
	return s
}

// settle waits until all that were sent so far have arrived, or a second, when some are lost, and returns their number.
func (s *stream) settle() (sent int64) {
	sent = s.sent.Load()
	for deadline := time.Now().Add(time.Second); s.whole.Load() < sent && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return sent
}

func (s *stream) stop() (sent, lost int64) {
	close(s.end)
	<-s.done
	sent = s.settle()
	s.close()
	return sent, sent - s.got.Load()
}

func (h *host) port(dev string) (port uint16) {
	must(h.t, h.ns.Do(func() error { port = h.engine.Port(dev); return nil }))
	return port
}

// streams are in both directions and for both families.
type streams []*stream

func newStreams(t *testing.T, a, b *host) (all streams) {
	t.Helper()
	for _, s := range []struct {
		from, to *host
		a        netip.Addr
	}{{a, b, b.podV4}, {b, a, a.podV4}, {a, b, b.v6}, {b, a, a.v6}} {
		all = append(all, newStream(t, s.from, s.to, s.a))
	}
	return all
}

// settle waits for what is under way: a queue in user space empties when its process gets its turn, not after a time.
func (all streams) settle() {
	for _, s := range all {
		s.settle()
	}
}

// stop fails the test where more than so many datagrams of one stream were lost.
func (all streams) stop(t *testing.T, most int64) {
	t.Helper()
	for i, s := range all {
		if sent, lost := s.stop(); lost > most || sent < 20 {
			t.Errorf("stream %d: %d of %d lost, at most %d may be", i, lost, sent, most)
		}
	}
}

var standIns = []string{wireguard.StandIn, wireguard.StandInV6}

// TestPortChange goes from two ports to two others and back, then to one device for both families and back to two, while pods of both families
// send in both directions: second devices get sessions, then the routes, then the first ones' names.
func TestPortChange(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	transfer(t, a.pod, b.pod, b.v6, 1000)
	traffic := newStreams(t, a, b)
	var old overlay.Options
	for _, next := range []overlay.Options{
		{ListenPort: 7000, ListenPortV6: 7001},
		{},
		{ListenPort: 7002, Mode: wireguard.ModeIPv4},
		{ListenPort: 7000, ListenPortV6: 7001},
	} {
		for _, h := range []*host{a, b} { // prepare
			o := next
			if h == a { // begins the sessions
				o.Keepalive = 25
			}
			h.bring(netstate.Union(h.with(old, h.other(a, b), false), receives(h.with(o, h.other(a, b), true))))
		}
		for _, h := range []*host{a, b} {
			meets(t, h, standIns)
		}
		for _, h := range []*host{a, b} { // put in force
			h.bring(netstate.Union(receives(h.with(old, h.other(a, b), false)), h.with(next, h.other(a, b), true)))
		}
		traffic.settle()
		for _, h := range []*host{a, b} {
			h.succeed()
			h.bring(h.with(next, h.other(a, b), false))
			v4, v6 := wireguard.Ports(next)
			if v6 == v4 {
				v6 = 0 // no such device
			}
			if got := h.port(wireguard.DeviceV6); h.port(wireguard.Device) != v4 || got != v6 || h.port(wireguard.StandIn) != 0 {
				t.Errorf("%s under %+v: %d and %d", h.name, next, h.port(wireguard.Device), got)
			}
		}
		old = next
	}
	traffic.stop(t, 0)
}

// other is the lease of the other host.
func (h *host) other(a, b *host) api.Lease {
	if h == a {
		return b.lease
	}
	return a.lease
}

// TestPortChangeAlone has a host change the port though its peer, as one that runs flannel, takes no part: it has one device, and reads the new
// port in the lease some time later.
func TestPortChangeAlone(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	transfer(t, b.pod, a.pod, a.v6, 1000)
	traffic := newStreams(t, a, b)
	next := overlay.Options{ListenPort: 7000, ListenPortV6: 7001, Keepalive: 25}
	toOld := func(s netstate.State) netstate.State { // the peer receives at the ports it has
		for _, u := range netstate.Of[netstate.Tunnel](s) {
			port := uint16(wireguard.DefaultPort)
			if u.Subnet.Addr().Is6() {
				port = wireguard.DefaultPortV6
			}
			u.Remote = netip.AddrPortFrom(u.Remote.Addr(), port)
			s.Add(u)
		}
		return s
	}
	a.bring(netstate.Union(receives(a.with(overlay.Options{}, b.lease, false)), toOld(a.with(next, b.lease, true))))
	meets(t, a, standIns)
	time.Sleep(50 * time.Millisecond)
	moved := a.lease
	moved.WGPort, moved.WGPortV6 = 7000, 7001
	b.apply(moved)
	a.succeed()
	next.Keepalive = 0
	a.bring(toOld(a.with(next, b.lease, false)))
	time.Sleep(50 * time.Millisecond)
	traffic.stop(t, 125) // half a second: it has one session at a time, and there is a moment until it takes up the new one
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	transfer(t, b.pod, a.pod, a.v6, 1000)
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
	for _, from := range standIns {
		to, _ := wireguard.StandsIn(from)
		if h.port(from) == 0 {
			continue
		}
		h.engine.LetGo(to)
		if l, ok, err := h.kernel.Link(ctx, to); err != nil || ok {
			must(h.t, err)
			must(h.t, h.kernel.Apply(ctx, []netstate.Op{{Verb: netstate.Del, Object: l}}))
		}
		must(h.t, h.kernel.Rename(ctx, from, to))
		h.engine.Renamed(from, to)
	}
}
