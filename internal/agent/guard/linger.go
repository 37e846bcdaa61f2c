package guard

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/overlay/edge"
)

// Keeper keeps what was planned before for as long as packets may be under way by it: a peer's old address while the others learn the
// new one, the network that was in force before.
type Keeper struct {
	self    facts.Setting
	own     api.Lease
	leases  []api.Lease
	planned Guard // of these
	result  Guard // planned and what lingers
	refused int   // leases of planned that are no peers
	ground  ways.Ground

	ports    lingering[uint16]
	segments lingering[edge.Segment]
	next     time.Time // when the first of those that linger ends, zero: none does

	// Members that no longer are, and until when they stay in result. They are not told apart in planned.
	gone     map[edge.Member]time.Time
	nextGone time.Time // as next

	timer   *time.Timer
	Expired chan struct{} // receives when something that lingered may go; nil: nobody waits
}

// Plan returns what is to be in force now.
func (g *Keeper) Plan(now time.Time, s facts.Setting, own api.Lease, leases []api.Lease) (Guard, error) {
	same := own == g.own && slices.Equal(leases, g.leases) && reflect.DeepEqual(s, g.self)
	if same && !past(now, g.next) && !past(now, g.nextGone) {
		return g.result, nil
	}
	members := slices.DeleteFunc(slices.Collect(g.result.Members.All()), func(m edge.Member) bool { return !g.gone[m].IsZero() })
	if !same {
		used, err := ways.Of(s.Facts, own, leases)
		if err != nil {
			return g.result, err
		}
		g.planned = Plan(s.Facts, used, own, leases)
		g.refused = g.planned.refused
		members = slices.Collect(g.planned.Members.All())
		g.planned.Members = Members{}
		g.self, g.own, g.leases = s, own, slices.Clone(leases)
	}
	g.next = time.Time{}
	before := g.result.Members
	g.result = Guard{Config: g.planned.Config, own: g.planned.own}
	g.result.Config.Untracked = keep(g, &g.ports, now, g.planned.Config.Untracked)
	g.result.Config.Segments = keep(g, &g.segments, now, g.planned.Config.Segments)
	g.result = g.result.of(g.keepMembers(now, before, members))
	g.wake(now)
	return g.result, nil
}

// past reports whether a time came; the zero time never does.
func past(now, t time.Time) bool { return !t.IsZero() && !now.Before(t) }

// keepMembers returns the members planned and those of before that linger.
func (g *Keeper) keepMembers(now time.Time, before Members, planned []edge.Member) []edge.Member {
	out := slices.Clone(planned)
	Differences(before, listOf(planned), func(m edge.Member) {
		until, was := g.gone[m]
		if !was {
			until = now.Add(ways.Linger)
		}
		if until.After(now) {
			g.left(m, until)
			out = append(out, m)
		} else {
			delete(g.gone, m)
		}
	}, func(edge.Member) {})
	for m := range g.gone {
		if _, is := slices.BinarySearchFunc(planned, m, compareMembers); is {
			delete(g.gone, m)
		}
	}
	g.nextGone = earliest(g.gone)
	slices.SortFunc(out, compareMembers)
	return out
}

// left notes that a member no longer is.
func (g *Keeper) left(m edge.Member, until time.Time) {
	if g.gone == nil {
		g.gone = map[edge.Member]time.Time{}
	}
	g.gone[m] = until
}

func earliest(times map[edge.Member]time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

// wake asks for a step when the first of what lingers ends.
func (g *Keeper) wake(now time.Time) {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	next := g.next
	if next.IsZero() || !g.nextGone.IsZero() && g.nextGone.Before(next) {
		next = g.nextGone
	}
	if g.Expired != nil && !next.IsZero() {
		g.timer = time.AfterFunc(next.Sub(now), func() { loop.Poke(g.Expired) })
	}
}

// lingering are values in use, with zero times, and those that no longer are, with the times until when they stay.
type lingering[T comparable] map[T]time.Time

// keep returns the values planned and those that linger.
func keep[T comparable](g *Keeper, l *lingering[T], now time.Time, planned []T) []T {
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
			until = now.Add(ways.Linger)
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
