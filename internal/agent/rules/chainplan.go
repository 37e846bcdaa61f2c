package rules

import (
	"reflect"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/proxy"
	iptproxy "weft/internal/proxy/iptables"
	"weft/internal/xt"
)

// Owners in the union of the rules of mode iptables, in the order in which their rules stand in a chain.
const (
	xtBase    = "0"
	xtService = "1 "
	xtPods    = "2"
)

// ChainPlan is the plan of mode iptables, kept so that a changed service costs that service. The zero ChainPlan is that of another mode.
type ChainPlan struct {
	merge *xt.Merge
	from  chainContent
	list  ServiceList
	whole *xt.Ruleset // the union, nil: not made since the last change
}

// chainContent is what the rules are planned from besides the services.
type chainContent struct {
	planner iptproxy.Planner
	node    proxy.Node
	masq    masq.Config
	more    xt.Ruleset
}

// RulesByService reports whether the mode's rules are those of ChainPlan.
func (m Mode) RulesByService() bool { return m.rules != nil && m.listeners == nil }

// Update plans what changed; more is what there is besides the mode's rules. ok is false when the ops can't be told from that, at the first call
// and when more than services changed: then the whole plan must be compared with what is there.
func (p *ChainPlan) Update(f facts.Facts, own api.Lease, snap api.Snapshot, more xt.Ruleset) (ops []xt.Op, ok bool) {
	m := Masquerade(f, own)
	from := chainContent{iptablesPlanner(f, m), Node(f, snap), m, more}
	gone, fresh, known := p.list.Next(snap.Services, snap.Changes)
	if p.merge == nil || !known || !reflect.DeepEqual(p.from, from) {
		p.merge, p.from, p.whole = xt.NewMerge(), from, nil
		parts := map[string]xt.Ruleset{xtBase: from.planner.Base(from.node), xtPods: xt.Union(masq.XT(m), more)}
		for _, s := range snap.Services {
			parts[xtService+OwnerOf(s)] = from.planner.Plan(from.node, s)
		}
		p.merge.Update(parts)
		return nil, false
	}
	parts := make(map[string]xt.Ruleset, len(gone)+len(fresh))
	for _, s := range gone {
		parts[xtService+OwnerOf(s)] = xt.Ruleset{}
	}
	for _, s := range fresh {
		parts[xtService+OwnerOf(s)] = from.planner.Plan(from.node, s)
	}
	if len(parts) == 0 {
		return nil, true
	}
	p.whole = nil
	return p.merge.Update(parts)
}

// Ruleset is the whole plan, empty in another mode.
func (p *ChainPlan) Ruleset() xt.Ruleset {
	if p.merge == nil {
		return xt.Ruleset{}
	}
	if p.whole == nil {
		all := p.merge.Ruleset()
		p.whole = &all
	}
	return *p.whole
}

// InForce reports whether the rules are those of this plan.
func (p *ChainPlan) InForce() bool { return p.merge != nil }
