package agent

import (
	"cmp"

	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/l2"
	"weft/internal/overlay/vxlan"
)

// kind is a way packets travel between hosts, as leases announce it. While the network changes from one kind to another, hosts announce
// different ones.
type kind struct {
	backend string
	vni     uint32 // vxlan only
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

func kindOf(l api.Lease) kind {
	k := kind{backend: cmp.Or(l.BackendType, lease.UDP)} // udp's leases do not say so, as flannel's
	if k.backend == lease.VXLAN {
		k.vni = cmp.Or(l.VNI, vxlan.DefaultVNI)
	}
	return k
}

// kind is the one the network's configuration names.
func (f Facts) kind() kind {
	return kindOf(api.Lease{BackendType: f.Backend, VNI: f.Options.VNI})
}

// ways returns the node's own way first, then those that peers still announce. Each host sends to a peer by the kind that the peer
// announces, and a host announces a kind when it can receive by it; so a change of the network's backend breaks no path, in whatever
// order the hosts take it up. Kinds in keep stay too: packets of peers that have not heard of a change yet are under way. Options earlier
// in force are by backend; where there are none the other kinds have their defaults.
func (f Facts) ways(own api.Lease, leases []api.Lease, earlier map[string]overlay.Options, keep ...kind) ([]way, error) {
	b, err := backendOf(f.Backend)
	if err != nil {
		return nil, err
	}
	first := f.kind()
	out := []way{{first, b, f.self(own), f.Bridge}}
	if !first.mixes() {
		return out, nil
	}
	seen := map[kind]bool{first: true}
	add := func(k kind) {
		if seen[k] || !k.mixes() {
			return
		}
		seen[k] = true
		b, err := backendOf(k.backend)
		if err != nil {
			return // a kind nobody can use is no reason to stop
		}
		self := f.self(own)
		if k.backend != f.Backend {
			self.Options = earlier[k.backend]
		}
		self.Options.VNI = k.vni
		// The MAC of another kind's device is not announced: the device keeps the one it has.
		self.Lease.BackendType, self.Lease.VNI, self.Lease.VTEPMAC, self.Lease.VTEPMACv6 = k.backend, k.vni, "", ""
		out = append(out, way{k, b, self, ""})
	}
	for _, l := range leases {
		if l.Subnet != own.Subnet || l.SubnetV6 != own.SubnetV6 {
			add(kindOf(l))
		}
	}
	for _, k := range keep {
		add(k)
	}
	return out, nil
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
func planNode(f Facts, ways []way, own api.Lease, all []api.Lease, pods []attach.Pod) (netstate.State, map[string]netstate.State) {
	host, inPod := attach.Plan(f.attachConfig(own, podMTU(ways)), pods)
	if f.ServiceRange.IsValid() && !f.Gateway.IsValid() {
		// Without a default route a process of the host could not even send to a service: rules see packets only after the routes.
		v6 := f.ServiceRange.Addr().Is6()
		host.Add(netstate.Route{Dst: f.ServiceRange, Dev: f.Dev, Src: f.addr(v6), Scope: "link"})
	}
	states := make([]netstate.State, 0, len(ways)+1)
	for _, w := range ways {
		states = append(states, w.backend.Plan(w.self, all))
	}
	return netstate.Union(append(states, host)...), inPod
}
