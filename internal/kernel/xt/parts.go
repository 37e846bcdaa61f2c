package xt

import (
	"context"
	"strings"

	"weft/internal/xt"
)

// partSize is how many ops iptables-nft-restore gets at once of those that nobody notices. What it takes for a transaction grows with the
// square of its chains (iptables 1.8.9: 5,000 services of ten endpoints 115 s in one transaction, 8.5 s in parts).
const partSize = 2000

// parts splits the ops of one table into those that only fill new chains, to which nothing leads yet, and the rest, which comes last and in
// one transaction: so every moment in between has all of the rules before. Chains come after those they lead to.
func parts(ops []xt.Op) [][]xt.Op {
	fill, made := map[string][]xt.Op{}, []string{}
	var rest []xt.Op
	for _, o := range ops {
		_, fresh := fill[o.Chain]
		switch {
		case o.Verb == xt.NewChain && xt.Owned(o.Chain):
			made = append(made, o.Chain)
			fill[o.Chain] = []xt.Op{o}
		case o.Verb == xt.Append && fresh:
			fill[o.Chain] = append(fill[o.Chain], o)
		default:
			rest = append(rest, o)
		}
	}
	p := partition{fill: fill, done: map[string]bool{}}
	for _, chain := range made {
		p.add(chain)
	}
	p.out = append(p.out, p.part)
	return append(p.out, rest)
}

type partition struct {
	fill map[string][]xt.Op
	done map[string]bool
	part []xt.Op
	out  [][]xt.Op
}

// add adds the ops that fill a chain, those it leads to first. Rules that lead in a circle are refused by iptables anyway.
func (p *partition) add(chain string) {
	if p.done[chain] {
		return
	}
	p.done[chain] = true
	for _, o := range p.fill[chain] {
		if j, ok := o.Rule.Target.(xt.Jump); ok && p.fill[j.Chain] != nil {
			p.add(j.Chain)
		}
	}
	if len(p.part) > 0 && len(p.part)+len(p.fill[chain]) > partSize {
		p.out, p.part = append(p.out, p.part), nil
	}
	p.part = append(p.part, p.fill[chain]...)
}

// inParts reports whether the ops of one table are better done in parts: where there are many, with the nf_tables variant. The legacy variant
// replaces the whole table for every transaction.
func (k Kernel) inParts(ctx context.Context, ops []xt.Op) bool {
	if len(ops) <= 2*partSize || k.Variant == "legacy" {
		return false
	}
	if k.Variant == "nft" {
		return true
	}
	version, err := run(ctx, "", "iptables", "--version")
	return err == nil && strings.Contains(version, "nf_tables")
}
