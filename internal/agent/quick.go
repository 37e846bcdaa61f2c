package agent

import (
	"context"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/kernel"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// deltas is a store of leases that can tell what changed since a version of the list. ok is false when it can't; then Leases tells all, as
// of the version returned or later.
type deltas interface {
	Delta(since uint64) (now uint64, d claim.Delta, ok bool)
}

// peerPlanner is a backend whose plan is that of its base and of each peer alone.
type peerPlanner interface {
	Peer(self overlay.Self, l api.Lease) netstate.State
}

// ground is what the last whole plan was made from, so that a changed lease can be planned alone.
type ground struct {
	version    uint64 // of the list of leases; 0: the next plan is a whole one
	generation uint64 // of the settings
	facts      facts.Facts
	own        api.Lease
	way        way
}

// newGround is the ground of a plan for the leases all, whose version was looked at before them. It is zero when a lease can't be planned
// alone: in a network that changes its backend, or where some are refused because of others.
func newGround(version, generation uint64, f facts.Facts, own api.Lease, all []api.Lease, ways []way, refused int) ground {
	if len(ways) != 1 || refused > 0 {
		return ground{}
	}
	if _, ok := ways[0].backend.(peerPlanner); !ok {
		return ground{}
	}
	b := ground{version: version, generation: generation, facts: f, own: own, way: ways[0]}
	for _, l := range all {
		if l.Also != "" || !b.alike(l) {
			return ground{}
		}
	}
	return b
}

// alike reports whether the lease's subnets are as long as the node's own: then two that overlap are the same.
func (b *ground) alike(l api.Lease) bool {
	return l.Subnet.Bits() == b.own.Subnet.Bits() && (!l.SubnetV6.IsValid() || l.SubnetV6.Bits() == b.own.SubnetV6.Bits())
}

// version of the leases now, 0 when they have none.
func (d *dataplane) version() uint64 {
	if log, ok := d.leases.(deltas); ok {
		now, _, _ := log.Delta(0)
		return now
	}
	return 0
}

// quick plans and applies only the leases that changed, when nothing else did; what it costs does not depend on how many there are.
// done is false when a whole step is needed.
func (d *dataplane) quick(ctx context.Context, due loop.Cause) (w loop.Work, done bool) {
	b := &d.ground
	log, ok := d.leases.(deltas)
	if !ok || due != loop.ByPlan || !d.planned || b.version == 0 || b.generation != d.settings.Generation() {
		return loop.Work{}, false
	}
	stored, ok := d.leases.Own()
	own := d.settings.Get().Own(stored)
	own.Expiry = b.own.Expiry // moves with every renewal and is in no plan
	if !ok || own != b.own {
		return loop.Work{}, false
	}
	now, delta, ok := log.Delta(b.version)
	if !ok {
		return loop.Work{}, false
	}
	ops, ok := b.ops(delta, d.want)
	if !ok || d.handle.Apply(ctx, ops) != nil {
		b.version = 0
		return loop.Work{}, false // a whole look finds out why, and reports it
	}
	d.handle.Follow(ops)
	for _, op := range ops {
		if op.Verb == netstate.Del {
			d.want.Remove(netstate.IDOf(op.Object))
		} else {
			d.want.Add(op.Object)
		}
	}
	logOps(d.log, "host", ops)
	b.version = now
	d.steps.Ops += len(ops)
	return loop.Work{Ops: len(ops)}, true
}

// ops are those for the leases that changed. ok is false when they have something to do with others that did not.
func (b *ground) ops(delta claim.Delta, want netstate.State) (ops []netstate.Op, ok bool) {
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
func (b *ground) union(leases []api.Lease, use func(netstate.ID, netstate.Object) (add, ok bool)) (all netstate.State, ok bool) {
	all = netstate.New()
	for _, l := range leases {
		objects, ok := b.peer(l)
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

// peer plans one lease; ok is false when the whole plan has to decide on it.
func (b *ground) peer(l api.Lease) (objects netstate.State, ok bool) {
	objects = netstate.New()
	if !b.alike(l) || l.Also != "" || b.way.self.Refuses(l) != "" {
		return objects, false
	}
	p, is := b.way.backend.(peerPlanner)
	if !is || kindOf(b.facts, lease.Kinds(l)[0]) != b.way.kind {
		return objects, false
	}
	l.Subnet, l.SubnetV6 = l.Subnet.Masked(), l.SubnetV6.Masked()
	objects = p.Peer(b.way.self, l)
	for id := range objects.All() {
		if !kernel.Applies(id.Kind) || id.Kind == netstate.KindLink {
			return objects, false
		}
	}
	return objects, true
}

// report says, once for each, which leases get no path though the store is content with them, and returns how many these are.
func (d *dataplane) report(self overlay.Self, all []api.Lease) int {
	_, refused := overlay.Peers(self, all)
	told := make(map[string]bool, len(refused))
	for _, r := range refused {
		text := r.String()
		told[text] = true
		if !d.refused[text] {
			// watchPathless says it to people, with key and value.
			d.log.Debug("no path for a lease: "+r.Reason, "subnet", r.Lease.Subnet, "subnetV6", r.Lease.SubnetV6, "publicIP", r.Lease.PublicIP)
		}
	}
	d.refused = told
	return len(refused)
}
