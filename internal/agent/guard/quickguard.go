package guard

import (
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease/claim"
	"weft/internal/overlay/edge"
)

// Leases is the store of leases: those that are good, the own one too. One that is ways.Deltas too costs less.
type Leases interface {
	Leases() []api.Lease
}

// Follow is plan for a store of leases that can tell what changed in them: then only the leases that changed are planned, and what that costs
// does not depend on how many there are but for copies of short lists. Where more may have changed, as in every full check, it is plan.
func (g *Keeper) Follow(now time.Time, generation uint64, s facts.Setting, own api.Lease, l Leases, due loop.Cause) (Guard, error) {
	log, _ := l.(ways.Deltas)
	own.Expiry = time.Time{} // moves with every renewal and is in no plan
	if log != nil && due&(loop.ByHost|loop.ByTime) == 0 && g.quick(now, generation, own, log) {
		return g.result, nil
	}
	g.ground = ways.Ground{}
	var version uint64
	if log != nil {
		version, _, _ = log.Delta(0)
	}
	all := l.Leases()
	out, err := g.Plan(now, s, own, all)
	if err != nil || version == 0 || s.Other != nil {
		return out, err
	}
	used, err := ways.Of(s.Facts, own, all)
	if err != nil {
		return out, err
	}
	g.ground = ways.NewGround(version, generation, s.Facts, own, all, used, g.refused)
	if g.ground.Version != 0 {
		g.leases = nil // the version says whether they are the same
	}
	return out, nil
}

// quick brings the members up to date by what changed in the leases. It reports whether that was all there is to do.
func (g *Keeper) quick(now time.Time, generation uint64, own api.Lease, log ways.Deltas) bool {
	b := &g.ground
	if b.Version == 0 || b.Generation != generation || own != b.Own || past(now, g.next) {
		return false
	}
	version, delta, ok := log.Delta(b.Version)
	if !ok {
		return false
	}
	gone, fresh, ok := g.moved(delta)
	if !ok {
		return false
	}
	if len(gone)+len(fresh) > 0 || past(now, g.nextGone) {
		g.swap(now, gone, fresh)
	}
	b.Version = version
	return true
}

// moved are the members of the leases that changed. ok is false when the whole plan has to decide on one.
func (g *Keeper) moved(d claim.Delta) (gone, fresh []edge.Member, ok bool) {
	segments := g.planned.Config.Segments
	if !g.planned.Config.Check || len(segments) == 0 {
		return nil, nil, true
	}
	for _, l := range d.Fresh {
		if _, ok := g.ground.Peer(l); !ok {
			return nil, nil, false
		}
	}
	gone, fresh = members(segments, nil, d.Gone), members(segments, nil, d.Fresh)
	other := func(m edge.Member) bool { return !g.result.Config.Shapes.Has(m) }
	return gone, fresh, !slices.ContainsFunc(fresh, other)
}

// swap puts the fresh members in force at once; those that are gone linger, and those that did so for long enough go.
func (g *Keeper) swap(now time.Time, gone, fresh []edge.Member) {
	list := g.result.Members
	for _, m := range gone {
		if _, lingers := g.gone[m]; !lingers && list.has(m) {
			g.left(m, now.Add(ways.Linger))
		}
	}
	for _, m := range fresh {
		delete(g.gone, m)
		list = list.with(m)
	}
	for m, until := range g.gone {
		if !until.After(now) {
			delete(g.gone, m)
			list = list.without(m)
		}
	}
	g.nextGone = earliest(g.gone)
	g.result.Members = list
	g.wake(now)
}
