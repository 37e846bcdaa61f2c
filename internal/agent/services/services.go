// Package services keeps the packet filter, the rules of services and the listeners of the relay as planned, in whatever proxy mode, and leads
// from one mode to another without losing a connection.
//
// Floor 4, programs.
package services

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/filter"
	"weft/internal/agent/flows"
	"weft/internal/agent/guard"
	"weft/internal/agent/healthports"
	"weft/internal/agent/loop"
	"weft/internal/agent/refused"
	"weft/internal/agent/rules"
	"weft/internal/agent/syncs"
	"weft/internal/agent/ways"
	"weft/internal/agent/wishes"
	"weft/internal/api"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
	"weft/internal/proxy/userspace"
	"weft/internal/relay"
	"weft/internal/xt"
)

// Leases is the store of leases as the loop uses it. One that is ways.Deltas too makes changes of leases cheap.
type Leases interface {
	Own() (api.Lease, bool) // the node's own lease, once it has one
	Leases() []api.Lease    // all that are good, the own one too
}

// relayEngine is the relay as the agent uses it: listeners in, the ports they hold out.
type relayEngine interface {
	Apply(want []netstate.Listener) (map[string]uint16, error)
	Ports() map[string]uint16
	Draining() int // listeners that are open only for the sessions they have
}

// Loop keeps the packet filter, the services' rules and the relay's listeners as planned.
type Loop struct {
	log     *slog.Logger
	setting func() facts.Setting
	// generation of the setting; nil: it does not change
	generation func() uint64
	leases     Leases
	cluster    func() (api.Snapshot, bool) // false: not known yet, so nothing may be removed
	whole      func() (api.Snapshot, bool) // the same for others than the step; nil: cluster
	xt         filter.Kernel
	relay      relayEngine
	nft        tableEngine
	writer     func() string // who changed a table last; nil: not known
	flows      *flows.Keeper // nil: flows are left alone
	turn       turn
	health     *healthports.Ports // nil: not served
	settings   *facts.InForce
	healing    *loop.Healing
	engine     *relay.Relay
	tables     *kernelnft.Conn // nil: the kernel has none

	mu        sync.Mutex
	want      rules.Rules // without the table, which is in table
	table     rules.TablePlan
	xtPlan    rules.XTPlan
	chainPlan rules.ChainPlan // in force in mode iptables
	localhost localhost
	tableOK   bool // the table was as planned after the last step
	tableIs   bool // and there was one
	guards    guard.Keeper
	sealed    edge.Seal // in force before the first plan of an encrypted network
	// noTables says why there are no nf_tables: then there is no edge check, and NOTRACK is iptables'.
	noTables error
	edge     refused.Counts
	main     filter.Filter
	other    filter.Filter // of the iptables variant that the host's default programs are not; none: zero
	steps    loop.Stats
	ports    int // of services

	warned   warned
	balance  wishes.Balancing
	limits   wishes.Limits
	syncs    syncs.Syncs
	otherErr string // why the last step of other failed
	// chains lists base chains, those of others too; nil: nobody can tell.
	chains func(nft.Hook) ([]kernelnft.BaseChain, error)

	first sync.Once
	ready chan struct{}
}

// Step plans and applies, in mode userspace in two phases: listeners first, then the rules that lead to the ports they hold.
func (p *Loop) Step(ctx context.Context, due loop.Cause) (loop.Work, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, ok := p.leases.Own()
	if !ok {
		return loop.Work{}, nil // its arrival is a trigger
	}
	snap, known := p.cluster()
	if !known {
		return loop.Work{}, nil // their arrival is a trigger
	}
	generation := uint64(0)
	if p.generation != nil {
		generation = p.generation()
	}
	begun := time.Now()
	p.syncs.Begin(begun)
	s := p.setting()
	g, err := p.guards.Follow(begun, generation, s, s.Own(own), p.leases, due)
	if err != nil {
		return loop.Work{}, err
	}
	f := s.Facts
	p.balance.Look(p.log, f, snap)
	p.limits.Look(p.log, f, snap)
	if p.flows != nil && rules.ModeOf(f).Services {
		p.flows.Expect()
	}
	w, err := p.apply(ctx, due, f, own, snap, g)
	if single(err) {
		p.syncs.InForce()
	}
	p.syncs.Step(begun, time.Now(), due, f.ProxyMode, snap.Changes, err)
	if !rules.ModeOf(f).Services {
		snap.Services, snap.Changes = nil, nil
	} else if p.flows != nil {
		p.flows.Follow(f, snap, p.heldByRules())
	}
	if p.health != nil {
		p.health.Follow(ctx, rules.Node(f, snap), snap)
	}
	w.By = p.blame(w.Repaired)
	p.steps.Steps++
	p.ports = len(snap.Services)
	p.steps.Ops += w.Ops
	p.steps.LastError = ""
	if err != nil {
		p.steps.LastError = err.Error()
		return w, err
	}
	if left := p.table.Refused(); left != nil { // of a step before: it is no error of this one, and not forgotten
		p.steps.LastError = left.Error()
	}
	p.first.Do(func() {
		p.steps.FirstOps = w.Ops
		p.log.Info("first check of the rules done", "ops", w.Ops, "mode", f.ProxyMode)
		close(p.ready)
	})
	return w, nil
}

// planXT adds to the plan without table inet weft what else would be in that when the kernel has none.
func (p *Loop) planXT(f facts.Facts, own api.Lease, r rules.Rules, g guard.Guard) rules.Rules {
	if p.noTables != nil {
		if rules.ModeOf(f).Table { // there is no table for the masquerading
			r.XT = masq.XT(rules.Masquerade(f, own))
		}
		r.XT = xt.Union(r.XT, rules.Untracked(g.Config))
	}
	return r
}

// blame says who changed the objects.
func (p *Loop) blame(repaired []string) map[string]string {
	if len(repaired) == 0 || p.writer == nil {
		return nil
	}
	by, who := map[string]string{}, p.writer()
	for _, name := range repaired[:min(len(repaired), loop.FightNames)] {
		by[name] = who
	}
	return by
}

func sum(all ...loop.Work) loop.Work {
	var w loop.Work
	for _, x := range all {
		w.Ops += x.Ops
		w.Repaired = append(w.Repaired, x.Repaired...)
	}
	return w
}

// listen applies the listeners and returns the ports they hold and how many were opened or closed. An agent that starts opens its
// listeners again: they died with the one before and are no change of the plan.
func (p *Loop) listen(want []netstate.Listener) (userspace.Ports, int, error) {
	before := len(p.relay.Ports())
	ports, err := p.relay.Apply(want)
	n := len(ports) - before
	if p.steps.Steps == 0 {
		n = 0
	}
	if err != nil {
		err = &listenError{err}
	}
	return ports, max(n, -n), err
}

// applyIPTables brings the rules of iptables to want, and those of the host's other iptables to what lets pods' packets through.
func (p *Loop) applyIPTables(ctx context.Context, due loop.Cause, want, forwarding xt.Ruleset, sparing bool) (loop.Work, error) {
	p.main.K, p.main.Name = p.xt, "iptables"
	w, err := p.main.Apply(ctx, p.log, due, want, sparing)
	return sum(w, p.applyOther(ctx, due, forwarding)), err
}

// applyOther brings the rules of the host's other iptables to what lets pods' packets through.
func (p *Loop) applyOther(ctx context.Context, due loop.Cause, forwarding xt.Ruleset) loop.Work {
	if p.other.K == nil {
		return loop.Work{}
	}
	w, err := p.other.Apply(ctx, p.log, due, forwarding, true)
	if p.otherErr = ""; err != nil { // nobody asked us to use it: said, but no reason not to be converged
		p.otherErr = err.Error()
	}
	return w
}

// Diff is what a step would do to the rules now.
func (p *Loop) Diff(ctx context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, ok := p.leases.Own()
	look := p.cluster
	if p.whole != nil {
		look = p.whole
	}
	snap, known := look()
	if !ok || !known {
		return nil, ways.ErrNoLease
	}
	s := p.setting()
	g, err := p.guards.Plan(time.Now(), s, s.Own(own), p.leases.Leases())
	if err != nil {
		return nil, err
	}
	f := s.Facts
	plan := p.planXT(f, own, rules.PlanXT(f, own, snap, p.relay.Ports()), g)
	have, err := p.xt.Read(ctx)
	if err != nil {
		return nil, err
	}
	if p.inTable(f) {
		plan.XT = filter.Used(masq.Forwarding(rules.Masquerade(f, own)), have)
	}
	var lines []string
	for _, op := range xt.Diff(plan.XT, have) {
		lines = append(lines, op.String())
	}
	if p.noTables != nil {
		return lines, nil
	}
	ops, err := p.tableDiff(rules.PlanTable(rules.ContentOf(f, own, snap, g)))
	for _, op := range ops {
		lines = append(lines, "nft "+op.String())
	}
	return lines, err
}

// State is what is wanted now.
func (p *Loop) State() rules.Rules {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.want
	r.XT = p.wantedXT()
	if t := p.table.Table(); t != nil {
		r.Table = t
	}
	return r
}
