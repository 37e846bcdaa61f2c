package xt

import (
	"slices"
	"strings"
)

// service is whom a rule of an unordered chain is for: what its comment begins with, namespace/name:port.
func (r Rule) service() string {
	for _, m := range r.Match {
		if c, ok := m.(Comment); ok {
			name, _, _ := strings.Cut(string(c), " ")
			return name
		}
	}
	return ""
}

// change returns the ops that turn the lines of a chain into c, false when the chain is better filled again.
func (d *differ) change(c Chain, have []string) ([]Op, bool) {
	if !c.Unordered {
		return d.edit(c, have)
	}
	want := texts(c.Rules)
	if slices.Equal(want, have) {
		return nil, true
	}
	ops := d.regroup(c, want, have)
	return ops, d.part || len(ops) <= editsMin+max(len(have), len(want))/2
}

// regroup returns the ops that turn the lines of an unordered chain into c: all rules of a service whose rules differ are made anew.
func (d *differ) regroup(c Chain, want, have []string) []Op {
	old := find(d.have, c.Name).Rules
	before, after := grouped(old, have), grouped(c.Rules, want)
	differs := func(r Rule) bool { return !slices.Equal(before[r.service()], after[r.service()]) }
	var ops []Op
	op := func(v Verb, r Rule) {
		if differs(r) {
			ops = append(ops, Op{V6: d.v6, Table: d.table, Chain: c.Name, Verb: v, Rule: r})
		}
	}
	for _, r := range old {
		op(Delete, r)
	}
	for _, r := range c.Rules {
		op(Append, r)
	}
	return ops
}

// grouped are the lines of each service.
func grouped(rules []Rule, lines []string) map[string][]string {
	out := make(map[string][]string, len(rules))
	for i, r := range rules {
		s := r.service()
		out[s] = append(out[s], lines[i])
	}
	return out
}
