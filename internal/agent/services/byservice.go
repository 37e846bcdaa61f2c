package services

import (
	"context"
	"errors"
	"log/slog"

	"weft/internal/agent/facts"
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
		more = rules.Untracked(c.Guard.Config.Untracked)
	}
	ops, known := p.chainPlan.Update(f, own, snap, more)
	p.main.k, p.main.name = p.xt, "iptables"
	forwarding := masq.Forwarding(rules.Masquerade(f, own))
	var w loop.Work
	var err error
	if known && p.main.ok && !foreignDue(due) {
		w, err = p.main.change(ctx, p.log, ops)
	} else {
		plan := p.chainPlan.Ruleset()
		p.main.stands(plan, known && len(ops) == 0)
		w, err = p.main.apply(ctx, p.log, due, plan, false)
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

// foreignDue reports whether somebody else may have changed rules of iptables.
func foreignDue(due loop.Cause) bool { return due&(loop.ByIPTables|loop.ByHost|loop.ByTime) != 0 }

// change does the ops of a changed plan, when the rules were as planned before and nobody else can have changed anything since: a table is
// restored as a whole or not at all, so neither before nor after it all rules must be read.
func (f *xtFilter) change(ctx context.Context, log *slog.Logger, ops []xt.Op) (loop.Work, error) {
	if len(ops) == 0 {
		return loop.Work{}, nil
	}
	f.ok, f.behind = false, true
	log.Info("applied", "what", f.name, "ops", len(ops))
	err := f.k.Apply(ctx, ops)
	f.ok = err == nil
	return loop.Work{Ops: len(ops)}, err
}

// stands says that the plan, unless it changed since the last step, is what there was to be after it.
func (f *xtFilter) stands(plan xt.Ruleset, unchanged bool) {
	if f.behind && unchanged {
		f.plan, f.made, f.behind = plan, plan, false
	}
}
