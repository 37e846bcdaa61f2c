// Package filter keeps the rules of one variant of iptables as planned, and sees what others have there.
//
// Floor 4, programs.
package filter

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"weft/internal/agent/loop"
	"weft/internal/agent/others"
	"weft/internal/xt"
)

// Filter is the iptables rules of one variant of its programs, as planned and as they were found.
type Filter struct {
	K       Kernel
	Name    string
	plan    xt.Ruleset // what the last step was asked for
	made    xt.Ruleset // what of it there is to be
	blocked []string   // rules of others that stop what ours would accept
	flannel []string   // chains a flannel left behind
	others  []string   // chains of a kube-proxy
	ok      bool       // the rules were as planned after the last step
	behind  bool       // plan and made are those of a step before the last one
}

// Apply reads the rules when the plan changed, somebody else may have changed them, or the step before failed. A sparing one makes rules
// only where somebody uses iptables: where its tables are not, nothing in them can drop.
func (f *Filter) Apply(ctx context.Context, log *slog.Logger, due loop.Cause, want xt.Ruleset, sparing bool) (loop.Work, error) {
	planned := !f.behind && equal(want, f.plan)
	if planned && f.ok && due&(loop.ByIPTables|loop.ByHost|loop.ByTime) == 0 {
		return loop.Work{}, nil
	}
	wasOK := f.ok
	if ops, ok := f.partial(due, want, sparing); ok {
		f.ok, f.plan, f.made = false, want, want
		log.Info("applied", "what", f.Name, "ops", len(ops))
		err := f.K.Apply(ctx, ops)
		f.ok = err == nil
		return loop.Work{Ops: len(ops)}, err
	}
	f.ok, f.plan, f.behind = false, want, false
	have, err := f.K.Read(ctx)
	if err != nil {
		return loop.Work{}, err
	}
	before := f.made
	f.see(want, have, sparing)
	ops := xt.Diff(f.made, have)
	w := loop.Work{Ops: len(ops)}
	if len(ops) == 0 {
		f.ok = true
		return w, nil
	}
	for _, op := range ops {
		log.Debug("op", "what", f.Name, "op", op.String())
	}
	if planned && wasOK && equal(f.made, before) {
		w.Repaired = chains(ops)
	}
	log.Info("applied", "what", f.Name, "ops", len(ops))
	if err := f.K.Apply(ctx, ops); err != nil {
		return w, err
	}
	err = f.verify(ctx)
	f.ok = err == nil
	return w, err
}

// see takes in what is there.
func (f *Filter) see(want, have xt.Ruleset, sparing bool) {
	f.blocked, f.flannel, f.others = blocked(have), others.FlannelLeft(have), others.Serving(have)
	if f.made = want; sparing {
		f.made = Used(want, have)
	}
}

// verify reads whether the rules are what they were made.
func (f *Filter) verify(ctx context.Context) error {
	have, err := f.K.Read(ctx)
	if err != nil {
		return err
	}
	if left := xt.Diff(f.made, have); len(left) > 0 {
		return &loop.UndoneError{What: "chains of " + f.Name, Objects: chains(left), First: left[0].String()}
	}
	return nil
}

// partial is what a changed plan changes in our own chains, when nobody else can have changed anything since the step before: a table is
// restored as a whole or not at all, so neither before nor after it all rules must be read. ok is false when they must.
func (f *Filter) partial(due loop.Cause, want xt.Ruleset, sparing bool) (ops []xt.Op, ok bool) {
	if !f.ok || f.behind || sparing || due&(loop.ByIPTables|loop.ByHost|loop.ByTime) != 0 {
		return nil, false
	}
	ops = xt.Diff(want, f.made)
	foreign := func(o xt.Op) bool { return !xt.Owned(o.Chain) }
	return ops, len(ops) > 0 && !slices.ContainsFunc(ops, foreign)
}

// equal costs nothing where two plans are one.
func equal(a, b xt.Ruleset) bool {
	one := func(a, b xt.Tables) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
	return one(a.V4, b.V4) && one(a.V6, b.V6) || len(xt.Diff(a, b)) == 0 && len(xt.Diff(b, a)) == 0
}

// Used is the part of a plan about forwarding for the families in which somebody uses table filter.
func Used(want, have xt.Ruleset) xt.Ruleset {
	for _, v6 := range []bool{false, true} {
		if !othersUse(*have.Family(v6)) {
			*want.Family(v6) = nil
		}
	}
	return want
}

// othersUse reports whether table filter drops what is forwarded, or holds anything of others.
func othersUse(have xt.Tables) bool {
	for _, t := range have {
		for _, c := range t.Chains {
			if t.Name != "filter" || xt.Owned(c.Name) {
				continue
			}
			foreign := func(r xt.Rule) bool { return !r.Owned() }
			if !xt.Builtin(c.Name) || c.Name == "FORWARD" && c.Policy == string(xt.Drop) || slices.ContainsFunc(c.Rules, foreign) {
				return true
			}
		}
	}
	return false
}

// blocked names the rules of others in FORWARD that stop every packet before our rule is asked.
func blocked(have xt.Ruleset) []string {
	var out []string
	for _, v6 := range []bool{false, true} {
		c := have.Family(v6).Chain("filter", "FORWARD")
		if c == nil {
			continue
		}
		name := "iptables"
		if v6 {
			name = "ip6tables"
		}
		end := slices.IndexFunc(c.Rules, xt.Rule.Owned)
		if end < 0 {
			end = len(c.Rules)
		}
		for _, r := range c.Rules[:end] {
			_, reject := r.Target.(xt.Reject)
			if (reject || r.Target == xt.Drop) && r.Matches(xt.Packet{}) == xt.Yes && unconditional(r) {
				out = append(out, fmt.Sprintf("%s: -A FORWARD%s stands before weft's rule: pods' packets that no rule before it accepts are stopped. "+
					"Put an accept of the pod network before it", name, r))
			}
		}
	}
	return out
}

// unconditional reports whether a rule is about every packet.
func unconditional(r xt.Rule) bool {
	if r.Src.Prefix.IsValid() || r.Dst.Prefix.IsValid() || r.In.Name != "" || r.Out.Name != "" || r.Proto.Name != "" {
		return false
	}
	return !slices.ContainsFunc(r.Match, func(m xt.Match) bool { _, comment := m.(xt.Comment); return !comment })
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

// OK reports whether the rules were as planned after the last step.
func (f *Filter) OK() bool { return f.ok }

// Wanted is what of the plan there is to be.
func (f *Filter) Wanted() xt.Ruleset { return f.made }

// Found is what of others was seen when the rules were last read: rules that stop what ours would accept, chains that a flannel left behind,
// and chains of a kube-proxy.
func (f *Filter) Found() (stop, flannel, proxies []string) { return f.blocked, f.flannel, f.others }

// Kernel is kernel/xt as the filter uses it.
type Kernel interface {
	Read(ctx context.Context) (xt.Ruleset, error)
	Apply(ctx context.Context, ops []xt.Op) error
}

// Foreign reports whether somebody else may have changed rules of iptables.
func Foreign(due loop.Cause) bool { return due&(loop.ByIPTables|loop.ByHost|loop.ByTime) != 0 }

// Change does the ops of a changed plan, when the rules were as planned before and nobody else can have changed anything since: a table is
// restored as a whole or not at all, so neither before nor after it all rules must be read.
func (f *Filter) Change(ctx context.Context, log *slog.Logger, ops []xt.Op) (loop.Work, error) {
	if len(ops) == 0 {
		return loop.Work{}, nil
	}
	f.ok, f.behind = false, true
	log.Info("applied", "what", f.Name, "ops", len(ops))
	err := f.K.Apply(ctx, ops)
	f.ok = err == nil
	return loop.Work{Ops: len(ops)}, err
}

// Stands says that the plan, unless it changed since the last step, is what there was to be after it.
func (f *Filter) Stands(plan xt.Ruleset, unchanged bool) {
	if f.behind && unchanged {
		f.plan, f.made, f.behind = plan, plan, false
	}
}
