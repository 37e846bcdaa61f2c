package agent

import (
	"context"
	"errors"
	"fmt"
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
	facts   Facts
	leases  leases
	cluster func() (api.Snapshot, bool) // false: not known yet, so nothing may be removed
	xt      iptables
	relay   relayEngine
	nft     tableEngine

	mu    sync.Mutex
	want  rules
	steps stepStats
	first sync.Once
	ready chan struct{}
}

// step plans and applies, in mode userspace in two phases: listeners first, then the rules that lead to the ports they hold.
func (p *proxyLoop) step(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, ok := p.leases.Own()
	snap, known := p.cluster()
	if !ok || !known {
		return nil // their arrival is a trigger
	}
	n, err := p.apply(ctx, own, snap)
	p.steps.Steps++
	p.steps.Ops += n
	p.steps.LastError = ""
	if err != nil {
		p.steps.LastError = err.Error()
		return err
	}
	p.first.Do(func() {
		p.steps.FirstOps = n
		p.log.Info("first check of the rules done", "ops", n, "mode", p.facts.ProxyMode)
		close(p.ready)
	})
	return nil
}

func (p *proxyLoop) apply(ctx context.Context, own api.Lease, snap api.Snapshot) (int, error) {
	held := userspace.Ports(p.relay.Ports())
	plan := planRules(p.facts, own, snap, preferredPorts(p.facts.proxyNode(snap), snap.Services, held))
	ports, opened, err := p.listen(plan.Listeners)
	errs := []error{err}
	if p.facts.ProxyMode == Userspace {
		plan = planRules(p.facts, own, snap, ports)
	}
	p.want = plan
	// The rules of the mode in force come first, so that a service is never without any.
	steps := []func() (int, error){
		func() (int, error) { return p.applyTable(ctx, plan) },
		func() (int, error) { return p.applyIPTables(ctx, plan.XT) },
	}
	if p.facts.ProxyMode == Userspace {
		slices.Reverse(steps)
	}
	ops := opened
	for _, s := range steps {
		n, err := s()
		ops += n
		errs = append(errs, err)
	}
	return ops, errors.Join(errs...)
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

func (p *proxyLoop) applyIPTables(ctx context.Context, want xt.Ruleset) (int, error) {
	have, err := p.xt.Read(ctx)
	if err != nil {
		return 0, err
	}
	ops := xt.Diff(want, have)
	if len(ops) == 0 {
		return 0, nil
	}
	for _, op := range ops {
		p.log.Debug("op", "what", "iptables", "op", op.String())
	}
	p.log.Info("applied", "what", "iptables", "ops", len(ops))
	if err := p.xt.Apply(ctx, ops); err != nil {
		return len(ops), err
	}
	have, err = p.xt.Read(ctx)
	if left := xt.Diff(want, have); err == nil && len(left) > 0 {
		err = fmt.Errorf("read back: %d iptables rules are not as planned, the first: %s", len(left), left[0])
	}
	return len(ops), err
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
	plan := planRules(p.facts, own, snap, p.relay.Ports())
	have, err := p.xt.Read(ctx)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, op := range xt.Diff(plan.XT, have) {
		lines = append(lines, op.String())
	}
	ops, err := p.tableDiff(plan)
	for _, op := range ops {
		lines = append(lines, "nft "+op.String())
	}
	return lines, err
}

func (p *proxyLoop) state() (rules, stepStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.want, p.steps
}
