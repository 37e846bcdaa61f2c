package services

import (
	"context"
	"errors"

	"weft/internal/agent/facts"
	"weft/internal/agent/filter"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/xt"
)

// applyByService does in mode iptables what changed in the plan. All rules are read only when somebody else may have changed some, and where what
// changed is more than services.
func (p *Loop) applyByService(
	ctx context.Context, due loop.Cause, f facts.Facts, own api.Lease, snap api.Snapshot, c rules.Content,
) (loop.Work, error) {
	var more xt.Ruleset
	if p.noTables != nil {
		more = rules.Untracked(c.Guard.Config)
	}
	ops, known := p.chainPlan.Update(f, own, snap, more)
	p.main.K, p.main.Name = p.xt, "iptables"
	forwarding := masq.Forwarding(rules.Masquerade(f, own))
	var w loop.Work
	var err error
	if known && p.main.OK() && !filter.Foreign(due) {
		w, err = p.main.Change(ctx, p.log, ops)
	} else {
		plan := p.chainPlan.Ruleset()
		p.main.Stands(plan, known && len(ops) == 0)
		w, err = p.main.Apply(ctx, p.log, due, plan, false)
	}
	w = sum(w, p.applyOther(ctx, due, forwarding))
	table, err2 := p.applyTable(due, p.table.Update(p.stay(err, f, own, snap, c)))
	p.want = rules.Rules{Listeners: p.localhost.plan}
	return sum(w, table), errors.Join(err, err2)
}

// stay is what table inet weft shall hold: when the rules of a new mode were refused, what it holds in the mode before.
func (p *Loop) stay(refused error, f facts.Facts, own api.Lease, snap api.Snapshot, c rules.Content) rules.Content {
	if refused == nil || p.turn.standing == f.ProxyMode || !rules.ModeNamed(p.turn.standing).Table {
		return c
	}
	f.ProxyMode = p.turn.standing
	return rules.ContentOf(f, own, snap, c.Guard)
}

// wantedXT is what there is to be in iptables.
func (p *Loop) wantedXT() xt.Ruleset {
	if p.chainPlan.InForce() {
		return p.chainPlan.Ruleset()
	}
	return p.want.XT
}
