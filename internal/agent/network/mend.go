package network

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/internal/agent/loop"
	"weft/internal/kernel/rtnl"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

// mender repairs single objects of the host, and holds back those that somebody else fights for.
type mender struct {
	fights loop.Fights
	held   map[netstate.ID]time.Time // not repaired before
	by     map[string]string         // who changed it last, by the object's name

	mu    sync.Mutex
	wrong map[netstate.ID]bool // parameters that are not as planned
}

// maxWriters bounds how many names of writers are kept.
const maxWriters = 256

// small does what is due without a whole look, injuries and changed leases alike. done is false when one is needed.
func (d *Loop) small(ctx context.Context, due loop.Cause) (w loop.Work, done bool) {
	if due == 0 || due&^(loop.ByKernel|loop.ByPlan) != 0 {
		return loop.Work{}, false
	}
	if due&loop.ByKernel != 0 {
		if w, done = d.mend(ctx); !done {
			return loop.Work{}, false
		}
	}
	if due&loop.ByPlan != 0 {
		quick, done := d.quick(ctx, loop.ByPlan)
		quick.Ops += w.Ops
		quick.Repaired, quick.By = w.Repaired, w.By
		return quick, done
	}
	return w, true
}

// mend repairs just what the kernel's events were about, which costs the same however large the network is. done is false when the
// events do not tell everything.
func (d *Loop) mend(ctx context.Context) (w loop.Work, done bool) {
	m := &d.mender
	if !d.planned {
		return loop.Work{}, false
	}
	now, wrong := time.Now(), m.takeWrong()
	list, ops, whole := d.handle.Injuries(m.due(now)...)
	m.note(list)
	if whole {
		return loop.Work{}, false
	}
	parameters, err := parameterOps(d.want, wrong)
	if err != nil {
		return loop.Work{}, false
	}
	hold := m.hold(now, true, nil)
	ops = append(parameters, ops...)
	if hold != nil {
		ops = slices.DeleteFunc(ops, hold)
	}
	w.Ops = len(ops)
	if err := d.handle.Apply(ctx, ops); err != nil {
		return loop.Work{}, false // a whole look finds out why, and reports it
	}
	logOps(d.log, "host", ops)
	for _, op := range ops {
		w.Repaired = append(w.Repaired, nameOf(op.Object))
	}
	w.By = m.seen(ops)
	d.steps.Ops += w.Ops
	return w, true
}

// parameterOps are those that bring the parameters to what is wanted.
func parameterOps(want netstate.State, wrong map[netstate.ID]bool) ([]netstate.Op, error) {
	if len(wrong) == 0 {
		return nil, nil
	}
	some := netstate.New()
	for id := range wrong {
		if o, ok := want.Get(id); ok {
			some.Add(o)
		}
	}
	have, err := sysctl.Read(some)
	if err != nil {
		return nil, err
	}
	for id := range some.All() {
		if _, ok := have.Get(id); !ok {
			some.Remove(id) // gone with its device, whose event says so
		}
	}
	return netstate.Diff(some, have), nil
}

// setWrong notes parameters that are not as planned, for the next mend.
func (m *mender) setWrong(ids map[netstate.ID]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrong == nil {
		m.wrong = map[netstate.ID]bool{}
	}
	maps.Copy(m.wrong, ids)
}

func (m *mender) takeWrong() map[netstate.ID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	wrong := m.wrong
	m.wrong = nil
	return wrong
}

// note remembers who changed what.
func (m *mender) note(list []rtnl.Injury) {
	for _, in := range list {
		if in.By == "" {
			continue
		}
		if m.by == nil || len(m.by) >= maxWriters {
			m.by = map[string]string{}
		}
		m.by[nameOfID(in.ID)] = in.By
	}
}

// seen returns who changed the objects of the ops, as far as known.
func (m *mender) seen(ops []netstate.Op) map[string]string {
	var by map[string]string
	for _, op := range ops[:min(len(ops), loop.FightNames)] {
		name := nameOf(op.Object)
		if who, ok := m.by[name]; ok {
			if by == nil {
				by = map[string]string{}
			}
			by[name] = who
		}
	}
	return by
}

// hold returns which ops are not done at the time now, and notes their objects; nil when nobody fights. What lies on a link that is fought
// for waits with it. What the plan has changed is no repair, and does not wait for its own sake; a nil changed is for a plan that stayed.
func (m *mender) hold(now time.Time, planned bool, changed func(netstate.ID) bool) func(netstate.Op) bool {
	if !planned || !m.fights.Rest().After(now) {
		return nil
	}
	return func(op netstate.Op) bool {
		o := op.Object
		var at time.Time
		if changed == nil || !changed(netstate.IDOf(o)) {
			at = m.fights.Held(nameOf(o))
		}
		if dev := o.On(); dev != "" {
			if t := m.fights.Held("link " + dev); t.After(at) {
				at = t
			}
		}
		if !at.After(now) {
			return false
		}
		if m.held == nil {
			m.held = map[netstate.ID]time.Time{}
		}
		m.held[netstate.IDOf(o)] = at
		return true
	}
}

// due takes the objects out whose time has come.
func (m *mender) due(now time.Time) (ids []netstate.ID) {
	for id, at := range maps.All(m.held) {
		if !at.After(now) {
			ids = append(ids, id)
			delete(m.held, id)
		}
	}
	return ids
}

// again is when the first of the objects held back is due, the zero time without any.
func (m *mender) again() (first time.Time) {
	for _, at := range m.held {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// nameOf is an object's name for those who look for what happened to it: "route 172.16.78.0/24", "link flannel.1".
func nameOf(o netstate.Object) string { return nameOfID(netstate.IDOf(o)) }

func nameOfID(id netstate.ID) string {
	if words := strings.Fields(id.Key); id.Kind == netstate.KindRoute && len(words) == 3 { // table, destination, metric
		return "route " + words[1]
	}
	return id.Kind.String() + " " + id.Key
}
