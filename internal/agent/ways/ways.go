// Package ways plans how packets travel between the nodes: by the backend that the network names, while it changes to another one by both, and
// to each peer by what that announces. It also plans a changed lease alone, where nothing else can depend on it.
//
// Floor 4, programs.
package ways

import (
	"errors"
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/l2"
	"weft/internal/overlay/wireguard"
)

// Kind is a way packets travel between hosts, as leases announce it. While the network changes from one kind to another, hosts announce
// different ones.
type Kind struct {
	Type string
	VNI  uint32 // vxlan only
	Port uint16 // vxlan: two devices with one VNI differ in it; wireguard: of the IPv4 pods' device, 0 where there are none

	PortV6 uint16 // wireguard: of the IPv6 pods' device, 0 where there are none
}

// Way is one kind with the backend that plans it and the node as that backend shall see it.
type Way struct {
	Kind
	Backend overlay.Backend
	Self    overlay.Self
	bridge  string
}

// mixes reports whether a host can use the kind beside another one: when it needs no more of the receiver than what the receiver's lease
// says. A network that is encrypted mixes with nothing, so that nothing leaves in clear.
func (k Kind) mixes() bool {
	return k.Type == lease.VXLAN || k.Type == lease.HostGW || k.Type == lease.UDP
}

// InForce is the one the network's configuration names.
func InForce(f facts.Facts) Kind {
	k := lease.Kind{Type: f.Backend, VNI: f.Options.VNI}
	if f.Backend == lease.WireGuard {
		k.Port, k.PortV6 = wireguard.Ports(f.Options)
	}
	return KindOf(f, k)
}

// Of returns the node's own way first, then the second one of a change under way, then those that peers still announce. Each host sends
// to a peer by a kind that the peer announces, and a host announces a kind when it can receive by it; so a change of the network's
// backend breaks no path, in whatever order the hosts take it up. Kinds in keep stay too: packets of peers that have not heard of a
// change yet are under way.
func Of(f facts.Facts, own api.Lease, leases []api.Lease, keep ...Kind) ([]Way, error) {
	b, err := Backend(f.Backend)
	if err != nil {
		return nil, err
	}
	first := InForce(f)
	out := []Way{{first, b, f.Self(own), f.Bridge}}
	seen := map[Kind]bool{first: true}
	add := func(k Kind, o overlay.Options, as api.Lease) {
		b, err := Backend(k.Type)
		if seen[k] || err != nil {
			return // a kind nobody can use is no reason to stop
		}
		seen[k] = true
		self := f.Self(as)
		self.Options = o
		out = append(out, Way{k, b, self, ""})
	}
	if o := f.Other; o != nil {
		if mine := receivers(f, nil, own, OtherKind(f)); len(mine) > 0 {
			add(OtherKind(f), o.Options, mine[0])
			standIn(out, o.Next)
		}
	}
	if !first.mixes() {
		return out, nil
	}
	mix := func(k Kind) {
		taken := slices.ContainsFunc(out, func(w Way) bool { return k.Type == lease.VXLAN && w.Kind.Type == k.Type && w.VNI == k.VNI })
		if k.mixes() && !taken { // else the device of another port would have the same name
			// The MAC of another kind's device is not announced: the device keeps the one it has.
			add(k, optionsFor(f, k), lease.Kind{Type: k.Type, VNI: k.VNI}.Of(own))
		}
	}
	for _, l := range leases {
		if l.Subnet != own.Subnet || l.SubnetV6 != own.SubnetV6 {
			mix(KindOf(f, lease.Kinds(l)[0]))
		}
	}
	for _, k := range keep {
		mix(k)
	}
	return out, nil
}

// optionsFor are those of a kind that is in use though it is not configured.
func optionsFor(f facts.Facts, k Kind) overlay.Options {
	o := f.Earlier[k.Type] // none: the defaults
	if k.Type == f.Backend {
		o = f.Options
	}
	if k.Type == lease.VXLAN {
		o.VNI, o.Port = k.VNI, k.Port
	}
	return o
}

// standIn gives the newer of two devices that differ in the port only another name for as long as there are two.
func standIn(ways []Way, next bool) {
	if len(ways) < 2 {
		return
	}
	a, b := ways[0].Kind, ways[1].Kind
	newer := &ways[0].Self.Options
	if next {
		newer = &ways[1].Self.Options
	}
	switch {
	case a.Type != b.Type:
	case a.Type == lease.VXLAN:
		newer.StandIn = a.VNI == b.VNI
	case a.Type == lease.WireGuard:
		newer.StandIn, newer.StandInV6 = a.Port != b.Port, a.PortV6 != b.PortV6
		if a.Port == 0 { // one device of IPv6 pods alone may have the IPv4 pods' name
			newer.StandIn = newer.StandInV6
		}
	}
}

// OtherKind is the kind of the second backend.
func OtherKind(f facts.Facts) Kind {
	k := lease.Kind{Type: f.Other.Backend, VNI: f.Other.Options.VNI, Port: PortOf(f.Other.Backend, f.Other.Options)}
	if k.Type == lease.WireGuard {
		k.Port, k.PortV6 = wireguard.Ports(f.Other.Options)
	}
	return KindOf(f, k)
}

// Place tells an overlay of one Ethernet segment where the pods are; the others need only the leases.
func Place(ways []Way, endpoints []l2.Endpoint) {
	for i, w := range ways {
		if b, ok := w.Backend.(l2.Backend); ok {
			b.Bridge, b.Endpoints = w.bridge, endpoints
			ways[i].Backend = b
		}
	}
}

// podMTU is the largest MTU in bytes that fits all ways.
func podMTU(ways []Way) int {
	mtu := 0
	for _, w := range ways {
		if m := overlay.MTU(w.Backend, w.Self); mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}

// PlanNode is the overlay's and the attachments' plan for one node: the host's part, and by UID what each pod needs inside.
func PlanNode(f facts.Facts, ways []Way, own api.Lease, all []api.Lease, pods []attach.Pod) (netstate.State, map[string]netstate.State) {
	host, inPod := attach.Plan(f.AttachConfig(own, podMTU(ways)), pods)
	if f.ServiceRange.IsValid() && !f.Gateway.IsValid() {
		// Without a default route a process of the host could not even send to a service: rules see packets only after the routes.
		v6 := f.ServiceRange.Addr().Is6()
		host.Add(netstate.Route{Dst: f.ServiceRange, Dev: f.Dev, Src: f.Addr(v6)})
	}
	return netstate.Union(append(planWays(f, ways, all), host, f.Services.Parameters(f.ProxyMode))...), inPod
}

// Linger is how long a way stays open for what arrives by it after the last peer stopped announcing it.
const Linger = 30 * time.Second

// ErrNoLease says that the node has no subnet yet.
var ErrNoLease = errors.New("no subnet is leased yet")
