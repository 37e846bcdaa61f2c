package network

import (
	"context"

	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// version of the leases now, 0 when they have none.
func (d *Loop) version() uint64 {
	if log, ok := d.leases.(ways.Deltas); ok {
		now, _, _ := log.Delta(0)
		return now
	}
	return 0
}

// quick plans and applies only the leases that changed, when nothing else did; what it costs does not depend on how many there are.
// done is false when a whole step is needed.
func (d *Loop) quick(ctx context.Context, due loop.Cause) (w loop.Work, done bool) {
	b := &d.ground
	log, ok := d.leases.(ways.Deltas)
	if !ok || due != loop.ByPlan || !d.planned || b.Version == 0 || b.Generation != d.settings.Generation() {
		return loop.Work{}, false
	}
	stored, ok := d.leases.Own()
	own := d.settings.Get().Own(stored)
	own.Expiry = b.Own.Expiry // moves with every renewal and is in no plan
	if !ok || own != b.Own {
		return loop.Work{}, false
	}
	now, delta, ok := log.Delta(b.Version)
	if !ok {
		return loop.Work{}, false
	}
	ops, ok := b.Ops(delta, d.want)
	if !ok || d.handle.Apply(ctx, ops) != nil {
		b.Version = 0
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
	b.Version = now
	d.steps.Ops += len(ops)
	return loop.Work{Ops: len(ops)}, true
}

// report says, once for each, which leases get no path though the store is content with them, and returns how many these are.
func (d *Loop) report(self overlay.Self, all []api.Lease) int {
	_, refused := overlay.Peers(self, all)
	told := make(map[string]bool, len(refused))
	for _, r := range refused {
		text := r.String()
		told[text] = true
		if !d.refused[text] {
			// leases.Pathless says it to people, with key and value.
			d.log.Debug("no path for a lease: "+r.Reason, "subnet", r.Lease.Subnet, "subnetV6", r.Lease.SubnetV6, "publicIP", r.Lease.PublicIP)
		}
	}
	d.refused = told
	return len(refused)
}
