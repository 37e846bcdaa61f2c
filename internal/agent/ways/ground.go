package ways

import (
	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/kernel"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Deltas is a store of leases that can tell what changed since a version of the list. ok is false when it can't; then Leases tells all, as
// of the version returned or later.
type Deltas interface {
	Delta(since uint64) (now uint64, d claim.Delta, ok bool)
}

// peerPlanner is a backend whose plan is that of its base and of each peer alone.
type peerPlanner interface {
	Peer(self overlay.Self, l api.Lease) netstate.State
}

// Ground is what the last whole plan was made from, so that a changed lease can be planned alone.
type Ground struct {
	Version    uint64 // of the list of leases; 0: the next plan is a whole one
	Generation uint64 // of the settings
	facts      facts.Facts
	Own        api.Lease
	way        Way
}

// NewGround is the ground of a plan for the leases all, whose version was looked at before them. It is zero when a lease can't be planned
// alone: in a network that changes its backend, or where some are refused because of others.
func NewGround(version, generation uint64, f facts.Facts, own api.Lease, all []api.Lease, ways []Way, refused int) Ground {
	if len(ways) != 1 || refused > 0 {
		return Ground{}
	}
	if _, ok := ways[0].Backend.(peerPlanner); !ok {
		return Ground{}
	}
	b := Ground{Version: version, Generation: generation, facts: f, Own: own, way: ways[0]}
	for _, l := range all {
		if l.Also != "" || !b.alike(l) {
			return Ground{}
		}
	}
	return b
}

// alike reports whether the lease's subnets are as long as the node's own: then two that overlap are the same.
func (b *Ground) alike(l api.Lease) bool {
	return l.Subnet.Bits() == b.Own.Subnet.Bits() && (!l.SubnetV6.IsValid() || l.SubnetV6.Bits() == b.Own.SubnetV6.Bits())
}

// Ops are those for the leases that changed. ok is false when they have something to do with others that did not.
func (b *Ground) Ops(delta claim.Delta, want netstate.State) (ops []netstate.Op, ok bool) {
	gone, ok := b.union(delta.Gone, func(id netstate.ID, o netstate.Object) (add, ok bool) {
		there, is := want.Get(id)
		return is, !is || there.String() == o.String()
	})
	if !ok {
		return nil, false
	}
	fresh, ok := b.union(delta.Fresh, func(id netstate.ID, o netstate.Object) (add, ok bool) {
		there, taken := want.Get(id)
		_, leaves := gone.Get(id)
		return !taken || leaves, !taken || leaves || there.String() == o.String()
	})
	return netstate.Diff(fresh, gone), ok
}

// union plans the leases, each alone; use says which of the objects count and which are no good.
func (b *Ground) union(leases []api.Lease, use func(netstate.ID, netstate.Object) (add, ok bool)) (all netstate.State, ok bool) {
	all = netstate.New()
	for _, l := range leases {
		objects, ok := b.Peer(l)
		if !ok {
			return all, false
		}
		for id, o := range objects.All() {
			add, ok := use(id, o)
			if _, twice := all.Get(id); !ok || twice {
				return all, false
			}
			if add {
				all.Add(o)
			}
		}
	}
	return all, true
}

// Peer plans one lease; ok is false when the whole plan has to decide on it.
func (b *Ground) Peer(l api.Lease) (objects netstate.State, ok bool) {
	objects = netstate.New()
	if !b.alike(l) || l.Also != "" || b.way.Self.Refuses(l) != "" {
		return objects, false
	}
	p, is := b.way.Backend.(peerPlanner)
	if !is || KindOf(b.facts, lease.Kinds(l)[0]) != b.way.Kind {
		return objects, false
	}
	l.Subnet, l.SubnetV6 = l.Subnet.Masked(), l.SubnetV6.Masked()
	objects = p.Peer(b.way.Self, l)
	for id := range objects.All() {
		if !kernel.Applies(id.Kind) || id.Kind == netstate.KindLink {
			return objects, false
		}
	}
	return objects, true
}
