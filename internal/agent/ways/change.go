package ways

import (
	"cmp"
	"net/netip"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// PortOf is the UDP port of backends that have one for all hosts, with its default; 0 for the others.
func PortOf(backend string, o overlay.Options) uint16 {
	switch backend {
	case lease.VXLAN:
		return cmp.Or(o.Port, vxlan.DefaultPort)
	case lease.UDP:
		return cmp.Or(o.Port, udp.DefaultPort)
	}
	return 0
}

// KindOf names a kind that a lease tells. A port that is not told is the one this node knows: vxlan's for the VNI, wireguard's its own.
func KindOf(f facts.Facts, k lease.Kind) Kind {
	out := Kind{Type: k.Type}
	switch k.Type {
	case lease.VXLAN:
		out.VNI = cmp.Or(k.VNI, vxlan.DefaultVNI)
		out.Port = k.Port
		if out.Port == 0 {
			out.Port = portFor(f, out.VNI)
		}
	case lease.WireGuard:
		v4, v6 := wireguardPorts(f)
		if f.Network.IsValid() {
			out.Port = cmp.Or(k.Port, v4)
		}
		if f.NetworkV6.IsValid() {
			out.PortV6 = cmp.Or(k.PortV6, v6)
		}
	}
	return out
}

func wireguardPorts(f facts.Facts) (v4, v6 uint16) {
	if f.Backend != lease.WireGuard && f.Other != nil && f.Other.Backend == lease.WireGuard {
		return wireguard.Ports(f.Other.Options)
	}
	return wireguard.Ports(f.Options)
}

func portFor(f facts.Facts, vni uint32) uint16 {
	if f.Backend == lease.VXLAN && cmp.Or(f.Options.VNI, vxlan.DefaultVNI) == vni {
		return PortOf(f.Backend, f.Options)
	}
	if o := f.Other; o != nil && o.Backend == lease.VXLAN && cmp.Or(o.Options.VNI, vxlan.DefaultVNI) == vni {
		return PortOf(o.Backend, o.Options)
	}
	if o := f.Earlier[lease.VXLAN]; cmp.Or(o.VNI, vxlan.DefaultVNI) == vni {
		return PortOf(lease.VXLAN, o)
	}
	return vxlan.DefaultPort
}

// choose says by which of the ways packets go to a peer, and the peer's lease as that way's backend reads it: by the node's own way when
// the peer receives by it, else by the one the peer has in force, else by any both have. A sealed node takes only its own, but by that it
// reaches a peer at whatever port.
func choose(f facts.Facts, ways []Way, l api.Lease) (api.Lease, int) {
	kinds := lease.Kinds(l)
	own := ways[0].Kind
	for _, k := range kinds {
		if KindOf(f, k) == own {
			return k.Of(l), 0
		}
	}
	if f.Sealed() {
		if k, ok := encrypted(kinds); ok {
			return k.Of(l), 0
		}
		return api.Lease{}, -1
	}
	for _, k := range kinds {
		name := KindOf(f, k)
		if i := slices.IndexFunc(ways, func(w Way) bool { return w.Kind == name }); i >= 0 {
			return k.Of(l), i
		}
	}
	return api.Lease{}, -1
}

// encrypted is the first of the kinds that is wireguard, at whatever port.
func encrypted(kinds []lease.Kind) (lease.Kind, bool) {
	i := slices.IndexFunc(kinds, func(k lease.Kind) bool { return k.Type == lease.WireGuard })
	if i < 0 {
		return lease.Kind{}, false
	}
	return kinds[i], true
}

// Reach reports whether one of the ways leads to a lease's holder that receives by the kind.
func Reach(f facts.Facts, ways []Way, k lease.Kind) bool {
	name := KindOf(f, k)
	return slices.ContainsFunc(ways, func(w Way) bool { return w.Kind == name || w.Type == lease.WireGuard && k.Type == lease.WireGuard })
}

// planWays is the overlay's part of the host: to each peer one path, by the way chosen for it, and on all ways what is needed to receive.
func planWays(f facts.Facts, ways []Way, all []api.Lease) []netstate.State {
	out := make([]netstate.State, 0, len(ways)+1)
	also := slices.ContainsFunc(all, func(l api.Lease) bool { return l.Also != "" })
	if len(ways) == 1 && !also {
		return append(out, ways[0].Backend.Plan(ways[0].Self, all))
	}
	peers, _ := overlay.Peers(ways[0].Self, all)
	send, receive := make([][]api.Lease, len(ways)), make([][]api.Lease, len(ways))
	for _, l := range peers {
		as, chosen := choose(f, ways, l)
		if chosen >= 0 {
			send[chosen] = append(send[chosen], as)
		}
		for i, w := range ways {
			if i != chosen && w.receivesBySender() {
				receive[i] = receivers(f, receive[i], l, w.Kind)
			}
		}
	}
	for i, w := range ways {
		s := w.plan(f, send[i])
		if i > 0 {
			s = s.Select(func(o netstate.Object) bool { return !networkRoute(f, o) && !has(out[0], o) })
		}
		out = append(out, s)
		if len(receive[i]) > 0 {
			// A device that two ways share has its peers already.
			out = append(out, w.standby(f, receive[i]).Select(func(o netstate.Object) bool { return !has(out[0], o) }))
		}
	}
	return out
}

func has(s netstate.State, o netstate.Object) bool {
	_, ok := s.Get(netstate.IDOf(o))
	return ok
}

// plan is what the way needs to send to peers. While the port of wireguard changes, one that has not taken part, or knows nothing of changes,
// has no session with the newer device, whose keys it must have before it sends there: this host begins one at once.
func (w Way) plan(f facts.Facts, peers []api.Lease) netstate.State {
	if w.Type != wireguard.Name || f.Other == nil || f.Other.Next || f.Other.Backend != wireguard.Name {
		return w.Backend.Plan(w.Self, peers)
	}
	var other []api.Lease
	same := make([]api.Lease, 0, len(peers))
	for _, l := range peers {
		if KindOf(f, lease.OwnKind(l)) == w.Kind {
			same = append(same, l)
		} else {
			other = append(other, l)
		}
	}
	begin := w.Self
	begin.Options.Keepalive = cmp.Or(begin.Options.Keepalive, standbyKeepalive)
	return netstate.Union(w.Backend.Plan(w.Self, same), w.Backend.Plan(begin, other))
}

// receivers appends the lease as one of the kind, when its holder receives by that: as it says now, or of what was left a moment ago as it said
// then.
func receivers(f facts.Facts, to []api.Lease, l api.Lease, want Kind) []api.Lease {
	if f.Other == nil || f.Other.Left == nil || want != OtherKind(f) {
		return asKind(f, to, l, want)
	}
	if k, ok := f.Other.Left[firstSubnet(l)]; ok {
		return append(to, k.Of(l))
	}
	return to
}

// Told is what leases say of the second backend, as facts.OtherBackend.Left has it.
func Told(f facts.Facts, leases []api.Lease) map[netip.Prefix]lease.Kind {
	out := make(map[netip.Prefix]lease.Kind, len(leases))
	for _, l := range leases {
		for _, k := range lease.Kinds(l) {
			if KindOf(f, k) == OtherKind(f) {
				out[firstSubnet(l)] = k
			}
		}
	}
	return out
}

func firstSubnet(l api.Lease) netip.Prefix { return cmp.Or(l.Subnet, l.SubnetV6).Masked() }

// asKind appends the lease as one of the kind, when its holder receives by that.
func asKind(f facts.Facts, to []api.Lease, l api.Lease, want Kind) []api.Lease {
	for _, k := range lease.Kinds(l) {
		if KindOf(f, k) == want {
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
func (w Way) receivesBySender() bool {
	return w.Kind.Type == lease.UDP || w.Kind.Type == lease.WireGuard
}

// standbyKeepalive, in seconds, makes and keeps an encrypted session with a peer that is not sent to yet: when the change comes the first
// packet does not wait for a handshake.
const standbyKeepalive = 25

// standby is what the way needs to receive from peers it does not send to: no routes. Of two hosts one begins the session, the one with
// the lower key: where both do, both handshakes may fail.
func (w Way) standby(f facts.Facts, peers []api.Lease) netstate.State {
	begin, wait := w.Self, w.Self
	// What is left while the port changes has its sessions; a keepalive from there would lead the peer back.
	leaves := f.Other != nil && !f.Other.Next && f.Backend == wireguard.Name
	if w.Kind.Type == wireguard.Name && !leaves {
		begin.Options.Keepalive, wait.Options.Keepalive = cmp.Or(w.Self.Options.Keepalive, standbyKeepalive), 0
	}
	var begun, waited []api.Lease
	for _, l := range peers {
		if w.Self.Lease.WGKey < l.WGKey {
			begun = append(begun, l)
		} else {
			waited = append(waited, l)
		}
	}
	return netstate.Union(w.Backend.Plan(begin, begun), w.Backend.Plan(wait, waited)).Select(func(o netstate.Object) bool {
		return o.Kind() == netstate.KindTunnel
	})
}

// Announced is what the node's lease says once the host is as planned: self, and the second backend's kind. That every other host is heard
// by it is said only for the change that asked.
func Announced(f facts.Facts, self api.Lease, peers []api.Lease, early bool) api.Lease {
	mine := lease.Kinds(self)
	if f.Other == nil || len(mine) < 2 {
		return lease.Announce(self)
	}
	k := mine[1]
	if !early && (!f.Other.Next || hears(f, peers, KindOf(f, k))) {
		k.Ready = f.Other.Change
	}
	if mine[0].Type != lease.VXLAN {
		return lease.Announce(self, k)
	}
	return lease.Announce(self, lease.Kind{Type: lease.VXLAN, VNI: mine[0].VNI, Port: PortOf(f.Backend, f.Options), InForce: true}, k)
}

// hears reports whether all peers announce the kind, so that the node knows whom to take packets from.
func hears(f facts.Facts, peers []api.Lease, want Kind) bool {
	for _, l := range peers {
		if len(asKind(f, nil, l, want)) == 0 {
			return false
		}
	}
	return true
}
