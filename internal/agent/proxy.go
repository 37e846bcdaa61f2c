package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

// iptables is kernel/xt as the agent uses it.
type iptables interface {
	Read(ctx context.Context) (xt.Ruleset, error)
	Apply(ctx context.Context, ops []xt.Op) error
}

// relayEngine is the relay as the agent uses it: listeners in, the ports they hold out.
type relayEngine interface {
	Apply(want []netstate.Listener) (map[string]uint16, error)
	Ports() map[string]uint16
}

// proxyLoop keeps the packet filter, the services' rules and the relay's listeners as planned.
type proxyLoop struct {
	log     *slog.Logger
	facts   func() Facts
	leases  leases
	cluster func() (api.Snapshot, bool) // false: not known yet, so nothing may be removed
	xt      iptables
	relay   relayEngine
	nft     tableEngine

	mu      sync.Mutex
	want    rules // in mode nftables without the table, which is in table
	table   tablePlan
	tableOK bool // the table was as planned after the last step
	xtOK    bool // the same of want.XT
	steps   stepStats
	first   sync.Once
	ready   chan struct{}
}

// step plans and applies, in mode userspace in two phases: listeners first, then the rules that lead to the ports they hold.
func (p *proxyLoop) step(ctx context.Context, due cause) (work, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, ok := p.leases.Own()
	snap, known := p.cluster()
	if !ok || !known {
		return work{}, nil // their arrival is a trigger
	}
	f := p.facts()
	w, err := p.apply(ctx, due, f, own, snap)
	p.steps.Steps++
	p.steps.Ops += w.ops
	p.steps.LastError = ""
	if err != nil {
		p.steps.LastError = err.Error()
		return w, err
	}
	p.first.Do(func() {
		p.steps.FirstOps = w.ops
		p.log.Info("first check of the rules done", "ops", w.ops, "mode", f.ProxyMode)
		close(p.ready)
	})
	return w, nil
}

func (p *proxyLoop) apply(ctx context.Context, due cause, f Facts, own api.Lease, snap api.Snapshot) (work, error) {
	if f.ProxyMode == NFTables {
		return p.applyNFTables(ctx, due, f, own, snap)
	}
	held := userspace.Ports(p.relay.Ports())
	plan := planRules(f, own, snap, preferredPorts(f.proxyNode(snap), snap.Services, held))
	ports, opened, err := p.listen(plan.Listeners)
	if f.ProxyMode == Userspace {
		plan = planRules(f, own, snap, ports)
	}
	// The rules of the mode in force come first, so that a service is never without any.
	filter, err1 := p.applyIPTables(ctx, due, plan.XT)
	table, err2 := p.applyTable(due, plan.Table, nil)
	p.table = tablePlan{}
	p.want = plan
	return sum(work{ops: opened}, filter, table), errors.Join(err, err1, err2)
}

// applyNFTables costs what changed: the whole table is looked at only when somebody else changed it, and now and then.
func (p *proxyLoop) applyNFTables(ctx context.Context, due cause, f Facts, own api.Lease, snap api.Snapshot) (work, error) {
	ops := p.table.update(f.proxyNode(snap), f.masqConfig(own), f.outerPorts(), snap.Services)
	table, err1 := p.applyTable(due, nil, ops)
	_, closed, err2 := p.listen(nil)
	filter, err3 := p.applyIPTables(ctx, due, xt.Ruleset{})
	p.want = rules{}
	return sum(table, work{ops: closed}, filter), errors.Join(err1, err2, err3)
}

func sum(all ...work) work {
	var w work
	for _, x := range all {
		w.ops += x.ops
		w.repaired = append(w.repaired, x.repaired...)
	}
	return w
}

// listen applies the listeners and returns the ports they hold and how many were opened or closed. An agent that starts opens its
// listeners again: they died with the one before and are no change of the plan.
func (p *proxyLoop) listen(want []netstate.Listener) (userspace.Ports, int, error) {
	before := len(p.relay.Ports())
	ports, err := p.relay.Apply(want)
	n := len(ports) - before
	if p.steps.Steps == 0 {
		n = 0
	}
	return ports, max(n, -n), err
}

// applyIPTables reads the rules when the plan changed, somebody else may have changed them, or the step before failed.
func (p *proxyLoop) applyIPTables(ctx context.Context, due cause, want xt.Ruleset) (work, error) {
	planned := len(xt.Diff(want, p.want.XT)) == 0 && len(xt.Diff(p.want.XT, want)) == 0
	if planned && p.xtOK && due&(byIPTables|byHost|byTime) == 0 {
		return work{}, nil
	}
	wasOK := p.xtOK
	p.xtOK = false
	have, err := p.xt.Read(ctx)
	if err != nil {
		return work{}, err
	}
	ops := xt.Diff(want, have)
	w := work{ops: len(ops)}
	if len(ops) == 0 {
		p.xtOK = true
		return w, nil
	}
	for _, op := range ops {
		p.log.Debug("op", "what", "iptables", "op", op.String())
	}
	if planned && wasOK {
		w.repaired = chains(ops)
	}
	p.log.Info("applied", "what", "iptables", "ops", len(ops))
	if err := p.xt.Apply(ctx, ops); err != nil {
		return w, err
	}
	have, err = p.xt.Read(ctx)
	if left := xt.Diff(want, have); err == nil && len(left) > 0 {
		err = &undoneError{"chains of iptables", chains(left), left[0].String()}
	}
	p.xtOK = err == nil
	return w, err
}

// chains names the chains of the ops.
func chains(ops []xt.Op) []string {
	var out []string
	for _, op := range ops {
		if name := "iptables chain " + op.Table + " " + op.Chain; !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// diff is what a step would do to the rules now.
func (p *proxyLoop) diff(ctx context.Context) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, ok := p.leases.Own()
	snap, known := p.cluster()
	if !ok || !known {
		return nil, errNoLease
	}
	plan := planRules(p.facts(), own, snap, p.relay.Ports())
	have, err := p.xt.Read(ctx)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, op := range xt.Diff(plan.XT, have) {
		lines = append(lines, op.String())
	}
	ops, err := p.tableDiff(plan.Table)
	for _, op := range ops {
		lines = append(lines, "nft "+op.String())
	}
	return lines, err
}

func (p *proxyLoop) state() (rules, stepStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.want
	if t := p.table.table(); t != nil {
		r.Table = t
	}
	return r, p.steps
}

// counters are those for status and metrics.
func (p *proxyLoop) counters() stepStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.steps
}
