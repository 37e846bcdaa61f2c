package agent

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// otherSelf is the node as its lease describes it for the second backend.
func (a *agent) otherSelf(ctx context.Context, f facts.Facts, c lease.Config) ([]lease.Kind, error) {
	if f.Other == nil {
		return nil, nil
	}
	c.Backend = cmp.Or(c.Next, c.Previous)
	f.Backend, f.Options = f.Other.Backend, f.Other.Options
	l, err := a.self(ctx, f, c)
	if err != nil {
		return nil, err
	}
	k := lease.OwnKind(l)
	k.InForce = false
	if k.Type == lease.VXLAN || k.Type == lease.UDP {
		k.Port = portOf(f.Backend, f.Options)
	}
	return []lease.Kind{k}, nil
}

func portOf(backend string, o overlay.Options) uint16 {
	switch backend {
	case lease.VXLAN:
		return cmp.Or(o.Port, vxlan.DefaultPort)
	case lease.UDP:
		return cmp.Or(o.Port, udp.DefaultPort)
	}
	return 0
}

// kindOf names a kind that a lease tells. A vxlan port that is not told is the one this node knows for the VNI.
func kindOf(f facts.Facts, k lease.Kind) kind {
	out := kind{backend: k.Type}
	if k.Type == lease.VXLAN {
		out.vni = cmp.Or(k.VNI, vxlan.DefaultVNI)
		out.port = k.Port
		if out.port == 0 {
			out.port = portFor(f, out.vni)
		}
	}
	return out
}

func portFor(f facts.Facts, vni uint32) uint16 {
	if f.Backend == lease.VXLAN && cmp.Or(f.Options.VNI, vxlan.DefaultVNI) == vni {
		return portOf(f.Backend, f.Options)
	}
	if o := f.Other; o != nil && o.Backend == lease.VXLAN && cmp.Or(o.Options.VNI, vxlan.DefaultVNI) == vni {
		return portOf(o.Backend, o.Options)
	}
	if o := f.Earlier[lease.VXLAN]; cmp.Or(o.VNI, vxlan.DefaultVNI) == vni {
		return portOf(lease.VXLAN, o)
	}
	return vxlan.DefaultPort
}

// choose says by which of the ways packets go to a peer, and the peer's lease as that way's backend reads it: by the node's own way when
// the peer receives by it, else by the one the peer has in force, else by any both have. A sealed node takes only its own.
func choose(f facts.Facts, ways []way, l api.Lease) (api.Lease, int) {
	kinds := lease.Kinds(l)
	own := ways[0].kind
	for _, k := range kinds {
		if kindOf(f, k) == own {
			return k.Of(l), 0
		}
	}
	if f.Sealed() {
		return api.Lease{}, -1
	}
	for _, k := range kinds {
		name := kindOf(f, k)
		if i := slices.IndexFunc(ways, func(w way) bool { return w.kind == name }); i >= 0 {
			return k.Of(l), i
		}
	}
	return api.Lease{}, -1
}

// planWays is the overlay's part of the host: to each peer one path, by the way chosen for it, and on all ways what is needed to receive.
func planWays(f facts.Facts, ways []way, all []api.Lease) []netstate.State {
	out := make([]netstate.State, 0, len(ways)+1)
	also := slices.ContainsFunc(all, func(l api.Lease) bool { return l.Also != "" })
	if len(ways) == 1 && !also {
		return append(out, ways[0].backend.Plan(ways[0].self, all))
	}
	peers, _ := overlay.Peers(ways[0].self, all)
	send, receive := make([][]api.Lease, len(ways)), make([][]api.Lease, len(ways))
	for _, l := range peers {
		as, chosen := choose(f, ways, l)
		if chosen >= 0 {
			send[chosen] = append(send[chosen], as)
		}
		for i, w := range ways {
			if i != chosen && w.receivesBySender() {
				receive[i] = asKind(f, receive[i], l, w.kind)
			}
		}
	}
	for i, w := range ways {
		s := w.backend.Plan(w.self, send[i])
		if i > 0 {
			s = s.Select(func(o netstate.Object) bool { return !networkRoute(f, o) })
		}
		out = append(out, s)
		if len(receive[i]) > 0 {
			out = append(out, w.standby(receive[i]))
		}
	}
	return out
}

// asKind appends the lease as one of the kind, when its holder receives by that.
func asKind(f facts.Facts, to []api.Lease, l api.Lease, want kind) []api.Lease {
	for _, k := range lease.Kinds(l) {
		if kindOf(f, k) == want {
			return append(to, k.Of(l))
		}
	}
	return to
}

// networkRoute reports whether the object is the route of the whole pod network, which only the way in force has.
func networkRoute(f facts.Facts, o netstate.Object) bool {
	r, ok := o.(netstate.Route)
	return ok && (r.Dst == f.Network.Masked() || r.Dst == f.NetworkV6.Masked())
}

// receivesBySender reports whether the way takes packets only from peers it was told of.
func (w way) receivesBySender() bool {
	return w.kind.backend == lease.UDP || w.kind.backend == lease.WireGuard
}

// standbyKeepalive, in seconds, makes and keeps an encrypted session with a peer that is not sent to yet: when the change comes the first
// packet does not wait for a handshake.
const standbyKeepalive = 25

// standby is what the way needs to receive from peers it does not send to: no routes. Of two hosts one begins the session, the one with
// the lower key: where both do, both handshakes may fail.
func (w way) standby(peers []api.Lease) netstate.State {
	begin, wait := w.self, w.self
	if w.kind.backend == wireguard.Name {
		begin.Options.Keepalive, wait.Options.Keepalive = cmp.Or(w.self.Options.Keepalive, standbyKeepalive), 0
	}
	var begun, waited []api.Lease
	for _, l := range peers {
		if w.self.Lease.WGKey < l.WGKey {
			begun = append(begun, l)
		} else {
			waited = append(waited, l)
		}
	}
	return netstate.Union(w.backend.Plan(begin, begun), w.backend.Plan(wait, waited)).Select(func(o netstate.Object) bool {
		return o.Kind() == netstate.KindTunnel
	})
}

// announced is what the node's lease says once the host is as planned: self, and the second backend's kind. That every other host is heard
// by it is said only for the change that asked.
func announced(f facts.Facts, self api.Lease, peers []api.Lease, early bool) api.Lease {
	mine := lease.Kinds(self)
	if f.Other == nil || len(mine) < 2 {
		return lease.Announce(self)
	}
	k := mine[1]
	if !early && (!f.Other.Next || hears(f, peers, kindOf(f, k))) {
		k.Ready = f.Other.Change
	}
	if mine[0].Type != lease.VXLAN {
		return lease.Announce(self, k)
	}
	return lease.Announce(self, lease.Kind{Type: lease.VXLAN, VNI: mine[0].VNI, Port: portOf(f.Backend, f.Options), InForce: true}, k)
}

// hears reports whether all peers announce the kind, so that the node knows whom to take packets from.
func hears(f facts.Facts, peers []api.Lease, want kind) bool {
	for _, l := range peers {
		if len(asKind(f, nil, l, want)) == 0 {
			return false
		}
	}
	return true
}

// basis is what a step planned from.
type basis struct {
	setting facts.Setting
	peers   []api.Lease // without the own lease
	open    map[kind]bool
	unmet   int // hosts without a session, of an encrypted backend that is prepared
}

// meetEvery is how often it is looked whether all sessions are there.
const meetEvery = 50 * time.Millisecond

// meet counts the hosts without a session while an encrypted backend is prepared, and sees to it that there will be one: the first packets
// under the new backend must not wait for it.
func (d *dataplane) meet(b basis, host netstate.State) (unmet int, err error) {
	if o := b.setting.Other; o == nil || !o.Next || o.Backend != lease.WireGuard {
		return 0, nil
	}
	if unmet, err = d.tunnels.unmet(host); unmet > 0 {
		time.AfterFunc(meetEvery, func() { loop.Poke(d.again) })
	}
	return unmet, err
}

// done notes what the node now receives by, and tells when others want to know.
func (d *dataplane) done(b basis) {
	before := d.told
	d.told = b
	if b.setting.Other == nil && before.setting.Other == nil {
		return
	}
	if !reflect.DeepEqual(before.setting.Other, b.setting.Other) || before.setting.Announced != b.setting.Announced ||
		(before.unmet == 0) != (b.unmet == 0) || !slices.Equal(before.peers, b.peers) {
		loop.Poke(d.heard)
	}
}

// announcement is what the node with the lease self tells the others: what a step made ready, and nothing else. ok is false before the
// first step: what the node told at its start holds.
func (d *dataplane) announcement(self api.Lease, f facts.Facts) (l api.Lease, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case f.Other == nil:
		return lease.Announce(self), true
	case d.told.open == nil:
		return l, false
	case !d.told.open[otherKind(f)]:
		return lease.Announce(self), true
	}
	same := d.told.setting.Announced == self && reflect.DeepEqual(d.told.setting.Other, f.Other)
	// Early: the step that knows of the change did not work yet, or sessions are missing.
	return announced(f, self, d.told.peers, !same || d.told.unmet > 0), true
}

// receives reports whether the last step that worked made the node receive by the kind.
func (d *dataplane) receives(k kind) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.told.open[k]
}

// left forgets the second backend of a change that has ended: every host said that it no longer sends by it, or never did. A kind that
// no change led away from lingers instead.
func (d *dataplane) left(s facts.Setting) {
	if before := d.told.setting; before.Other != nil && s.Other == nil && otherKind(before.Facts) != inForce(s.Facts) {
		delete(d.kinds, otherKind(before.Facts))
	}
}
