package agent

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/overlay/edge"
)

// guards keeps what was planned before for as long as packets may be under way by it: a peer's old address while the others learn the
// new one, the network that was in force before.
type guards struct {
	self    setting
	own     api.Lease
	leases  []api.Lease
	planned guard // of these
	result  guard // planned and what lingers
	refused int   // leases of planned that are no peers
	ground  ground

	ports    lingering[uint16]
	segments lingering[edge.Segment]
	members  lingering[edge.Member]
	next     time.Time // when the first of what lingers ends, zero: nothing does
	timer    *time.Timer
	expired  chan struct{} // receives when something that lingered may go; nil: nobody waits
}

// plan returns what is to be in force now.
func (g *guards) plan(now time.Time, s setting, own api.Lease, leases []api.Lease) (guard, error) {
	same := own == g.own && slices.Equal(leases, g.leases) && reflect.DeepEqual(s, g.self)
	if same && (g.next.IsZero() || now.Before(g.next)) {
		return g.result, nil
	}
	if !same {
		ways, err := s.ways(own, leases)
		if err != nil {
			return g.result, err
		}
		g.planned = planGuard(s.Facts, ways, own, leases)
		g.refused = g.planned.refused
		g.self, g.own, g.leases = s, own, slices.Clone(leases)
	}
	g.next = time.Time{}
	g.result = guard{config: g.planned.config}
	g.result.config.Untracked = keep(g, &g.ports, now, g.planned.config.Untracked)
	g.result.config.Segments = keep(g, &g.segments, now, g.planned.config.Segments)
	g.result.members = keep(g, &g.members, now, g.planned.members)
	g.result = g.result.sorted()
	g.wake(now)
	return g.result, nil
}

// wake asks for a step when the first of what lingers ends.
func (g *guards) wake(now time.Time) {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if g.expired != nil && !g.next.IsZero() {
		g.timer = time.AfterFunc(g.next.Sub(now), func() { poke(g.expired) })
	}
}

// lingering are values in use, with zero times, and those that no longer are, with the times until when they stay.
type lingering[T comparable] map[T]time.Time

// keep returns the values planned and those that linger.
func keep[T comparable](g *guards, l *lingering[T], now time.Time, planned []T) []T {
	if *l == nil {
		*l = lingering[T]{}
	}
	in := make(map[T]bool, len(planned))
	for _, v := range planned {
		in[v] = true
		(*l)[v] = time.Time{}
	}
	for v, until := range *l {
		switch {
		case in[v]:
			continue
		case until.IsZero():
			until = now.Add(linger)
			(*l)[v] = until
		case !until.After(now):
			delete(*l, v)
			continue
		}
		if g.next.IsZero() || until.Before(g.next) {
			g.next = until
		}
	}
	return slices.Collect(maps.Keys(*l))
}
