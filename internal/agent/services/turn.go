package services

import (
	"context"
	"errors"
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
	"weft/internal/relay"
)

// A change of the mode makes before it breaks. Address translation is decided on a connection's first packet and kept in its connection
// tracking entry, so what is established goes on whatever rules come and go; while the rules of both modes stand the first to match a
// packet translates it and the other's are not asked. Connections that were redirected to the relay live in it: its listeners stay for
// those under way, and until the last UDP session is idle.

// turn is what a change of the mode leaves to be done.
type turn struct {
	standing facts.ProxyMode // in force: every rule of it was applied once
	until    time.Time       // when what is left of the relay's UDP sessions ends
	draining int             // listeners that no rule leads to
	sessions func() int      // how many connections and sessions came to the relay by rules; nil: not known
	again    chan struct{}
	timer    *time.Timer
}

const (
	// drainLimit is how long a UDP session of the relay may go on after the mode changed. TCP connections have no limit.
	drainLimit = 10 * time.Minute
	// drainLook is how often the listeners that are left are looked at.
	drainLook = time.Second
)

// inTable reports whether the mode's rules are those of table inet weft.
func (p *Loop) inTable(f facts.Facts) bool { return rules.ModeOf(f).Table && p.noTables == nil }

// apply brings rules and listeners to the mode of the facts. As long as the rules of a new mode were refused those of the one before stay.
func (p *Loop) apply(ctx context.Context, due loop.Cause, f facts.Facts, own api.Lease, snap api.Snapshot, g guard.Guard) (loop.Work, error) {
	c := rules.ContentOf(f, own, snap, g)
	opened := p.openLocalhost(f, snap)
	var w loop.Work
	var err error
	if p.inTable(f) {
		w, err = p.applyInTable(ctx, due, f, c)
	} else {
		w, err = p.applyInIPTables(ctx, due, f, own, snap, c)
	}
	w.Ops += opened
	inForce := err == nil || p.inTable(f) && p.tableOK && p.main.OK() // a single object that is refused is no reason to stay
	if inForce && p.turn.standing != f.ProxyMode {
		if p.turn.standing != "" {
			p.log.Info("services are in another mode", "from", p.turn.standing, "to", f.ProxyMode)
		}
		p.turn.standing, p.turn.until = f.ProxyMode, time.Now().Add(drainLimit)
	}
	if p.turn.standing != f.ProxyMode || rules.ModeOf(f).Relays() {
		return w, err
	}
	w.Ops += p.drain(due, f, snap)
	return w, err
}

// applyInTable costs what changed: the whole table is looked at only when somebody else changed it, and now and then.
func (p *Loop) applyInTable(ctx context.Context, due loop.Cause, f facts.Facts, c rules.Content) (loop.Work, error) {
	table, err := p.applyTable(due, p.table.Update(c))
	if err != nil && !p.tableOK && p.turn.standing != f.ProxyMode {
		return table, err
	}
	p.chainPlan = rules.ChainPlan{}
	forwarding := masq.Forwarding(c.Masq)
	filter, err2 := p.applyIPTables(ctx, due, forwarding, forwarding, true)
	p.want = rules.Rules{XT: p.main.Wanted(), Listeners: p.localhost.plan}
	return sum(table, filter), errors.Join(err, err2)
}

// applyInIPTables opens the listeners first, then come the rules that lead to the ports they hold.
func (p *Loop) applyInIPTables(ctx context.Context, due loop.Cause, f facts.Facts, own api.Lease, snap api.Snapshot, c rules.Content) (loop.Work, error) {
	if rules.ModeOf(f).RulesByService() {
		return p.applyByService(ctx, due, f, own, snap, c)
	}
	p.chainPlan = rules.ChainPlan{}
	var w loop.Work
	var err error
	var ports userspace.Ports
	if rules.ModeOf(f).Relays() {
		ports, w.Ops, err = p.listen(slices.Concat(rules.Listeners(f, snap, p.relay.Ports()), p.localhost.plan))
	}
	plan := p.planXT(f, own, p.xtPlan.Plan(f, own, snap, ports), c.Guard)
	filter, err1 := p.applyIPTables(ctx, due, plan.XT, masq.Forwarding(rules.Masquerade(f, own)), false)
	if err1 == nil && p.localhost.made && rules.ModeOf(f).Relays() { // from now on the rules lead elsewhere from there
		p.localhost = localhost{}
		_, closed, err3 := p.listen(plan.Listeners)
		w.Ops, err = w.Ops+closed, errors.Join(err, err3)
	}
	table, err2 := p.applyTable(due, p.table.Update(p.stay(err1, f, own, snap, c)))
	p.want = plan
	return sum(w, filter, table), errors.Join(err, err1, err2)
}

// transact performs the ops. Where rules change, what only the old ones looked up goes in a second transaction: the kernel puts another
// generation of rules and elements in force while packets are on their way through the old rules, and those would look up what is no more.
func (p *Loop) transact(ops []nft.Op) error {
	n := parting(ops)
	err := p.nft.Apply(ops[:n])
	if refused, only := refusals(err); n < len(ops) && only {
		last, _ := refusals(p.nft.Apply(ops[n:]))
		return errors.Join(append(refused, last...)...)
	}
	return err
}

// refusals are the errors that are joined in one; only reports whether all are about single objects and the rest is programmed.
func refusals(err error) (all []error, only bool) {
	if err == nil {
		return nil, true
	}
	all = []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = slices.Clone(joined.Unwrap())
	}
	return all, !slices.ContainsFunc(all, func(e error) bool {
		_, ok := errors.AsType[*kernelnft.Refused](e)
		return !ok
	})
}

// parting is the index of the first op that takes elements or sets away after rules changed; the number of ops when none does.
func parting(ops []nft.Op) int {
	rules := false
	for i, op := range ops {
		switch op.Kind {
		case nft.KindRules, nft.KindChain:
			rules = true
		case nft.KindElements, nft.KindSet:
			if rules && op.Verb == nft.Del {
				return i
			}
		}
	}
	return len(ops)
}

// drain leaves the relay's listeners that no rule leads to any longer to those who are connected, and to packets that are under way, beside
// those of NodePorts on loopback. It returns how many were opened and closed.
func (p *Loop) drain(due loop.Cause, f facts.Facts, snap api.Snapshot) int {
	held := p.heldByRules()
	changed := p.localhostChanged(f, snap)
	if !changed && p.turn.draining+len(held) == 0 && due&loop.ByTime == 0 {
		return 0
	}
	var left []netstate.Listener
	if p.turn.draining+len(held) > 0 && time.Now().Before(p.turn.until) {
		left = userspace.AllListeners(rules.Node(f, snap), snap.Services, held)
		for i := range left {
			left[i].Drain = true
		}
	}
	before := p.turn.draining
	closed := p.listenLocalhost(left)
	p.turn.draining = p.relay.Draining()
	if p.turn.draining == 0 {
		if before > 0 {
			p.log.Info("the last listener of mode userspace is closed")
		}
		return closed
	}
	if p.turn.again != nil {
		if p.turn.timer != nil {
			p.turn.timer.Stop()
		}
		p.turn.timer = time.AfterFunc(drainLook, func() { loop.Poke(p.turn.again) })
	}
	return closed
}

// turned is the mode in force, "" before the first, the listeners that are open for what they have, and the relay's connections and sessions.
func (p *Loop) turned() (mode facts.ProxyMode, draining, sessions int) {
	if p.turn.sessions != nil {
		sessions = p.turn.sessions()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turn.standing, p.turn.draining, sessions
}

// throughRules counts the relay's connections that rules sent there: those to NodePorts on loopback came by themselves, in any mode.
func throughRules(all []relay.Connection) int {
	n := 0
	for _, c := range all {
		if !proxy.IsLocalhost(c.Service) {
			n++
		}
	}
	return n
}
