package agent

import (
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/l2"
)

// kind is a way packets travel between hosts, as leases announce it. While the network changes from one kind to another, hosts announce
// different ones.
type kind struct {
	backend string
	vni     uint32 // vxlan only
	port    uint16 // vxlan only: two devices with one VNI differ in it
}

// way is one kind with the backend that plans it and the node as that backend shall see it.
type way struct {
	kind
	backend overlay.Backend
	self    overlay.Self
	bridge  string
}

// mixes reports whether a host can use the kind beside another one: when it needs no more of the receiver than what the receiver's lease
// says. A network that is encrypted mixes with nothing, so that nothing leaves in clear.
func (k kind) mixes() bool {
	return k.backend == lease.VXLAN || k.backend == lease.HostGW || k.backend == lease.UDP
}

// inForce is the one the network's configuration names.
func inForce(f facts.Facts) kind {
	return kindOf(f, lease.Kind{Type: f.Backend, VNI: f.Options.VNI})
}

// waysOf returns the node's own way first, then the second one of a change under way, then those that peers still announce. Each host sends
// to a peer by a kind that the peer announces, and a host announces a kind when it can receive by it; so a change of the network's
// backend breaks no path, in whatever order the hosts take it up. Kinds in keep stay too: packets of peers that have not heard of a
// change yet are under way.
func waysOf(f facts.Facts, own api.Lease, leases []api.Lease, keep ...kind) ([]way, error) {
	b, err := backendOf(f.Backend)
	if err != nil {
		return nil, err
	}
	first := inForce(f)
	out := []way{{first, b, f.Self(own), f.Bridge}}
	seen := map[kind]bool{first: true}
	add := func(k kind, o overlay.Options, as api.Lease) {
		b, err := backendOf(k.backend)
		if seen[k] || err != nil {
			return // a kind nobody can use is no reason to stop
		}
		seen[k] = true
		self := f.Self(as)
		self.Options = o
		out = append(out, way{k, b, self, ""})
	}
	if o := f.Other; o != nil {
		if mine := asKind(f, nil, own, otherKind(f)); len(mine) > 0 {
			add(otherKind(f), o.Options, mine[0])
			standIn(out, o.Next)
		}
	}
	if !first.mixes() {
		return out, nil
	}
	mix := func(k kind) {
		taken := slices.ContainsFunc(out, func(w way) bool { return k.backend == lease.VXLAN && w.kind.backend == k.backend && w.vni == k.vni })
		if k.mixes() && !taken { // else the device of another port would have the same name
			// The MAC of another kind's device is not announced: the device keeps the one it has.
			add(k, optionsFor(f, k), lease.Kind{Type: k.backend, VNI: k.vni}.Of(own))
		}
	}
	for _, l := range leases {
		if l.Subnet != own.Subnet || l.SubnetV6 != own.SubnetV6 {
			mix(kindOf(f, lease.Kinds(l)[0]))
		}
	}
	for _, k := range keep {
		mix(k)
	}
	return out, nil
}

// optionsFor are those of a kind that is in use though it is not configured.
func optionsFor(f facts.Facts, k kind) overlay.Options {
	o := f.Earlier[k.backend] // none: the defaults
	if k.backend == f.Backend {
		o = f.Options
	}
	if k.backend == lease.VXLAN {
		o.VNI, o.Port = k.vni, k.port
	}
	return o
}

// standIn gives the newer of two VXLAN devices with one VNI, which differ in the port, another name for as long as there are two.
func standIn(ways []way, next bool) {
	if len(ways) < 2 {
		return
	}
	if a, b := ways[0].kind, ways[1].kind; a.backend == lease.VXLAN && b.backend == lease.VXLAN && a.vni == b.vni {
		ways[0].self.Options.StandIn, ways[1].self.Options.StandIn = !next, next
	}
}

// otherKind is the kind of the second backend.
func otherKind(f facts.Facts) kind {
	return kindOf(f, lease.Kind{Type: f.Other.Backend, VNI: f.Other.Options.VNI, Port: portOf(f.Other.Backend, f.Other.Options)})
}

// place tells an overlay of one Ethernet segment where the pods are; the others need only the leases.
func place(ways []way, endpoints []l2.Endpoint) {
	for i, w := range ways {
		if b, ok := w.backend.(l2.Backend); ok {
			b.Bridge, b.Endpoints = w.bridge, endpoints
			ways[i].backend = b
		}
	}
}

// podMTU is the largest MTU in bytes that fits all ways.
func podMTU(ways []way) int {
	mtu := 0
	for _, w := range ways {
		if m := overlay.MTU(w.backend, w.self); mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}

// planNode is the overlay's and the attachments' plan for one node: the host's part, and by UID what each pod needs inside.
func planNode(f facts.Facts, ways []way, own api.Lease, all []api.Lease, pods []attach.Pod) (netstate.State, map[string]netstate.State) {
	host, inPod := attach.Plan(f.AttachConfig(own, podMTU(ways)), pods)
	if f.ServiceRange.IsValid() && !f.Gateway.IsValid() {
		// Without a default route a process of the host could not even send to a service: rules see packets only after the routes.
		v6 := f.ServiceRange.Addr().Is6()
		host.Add(netstate.Route{Dst: f.ServiceRange, Dev: f.Dev, Src: f.Addr(v6)})
	}
	return netstate.Union(append(planWays(f, ways, all), host, f.Services.Parameters())...), inPod
}
