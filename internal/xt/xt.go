// Package xt holds iptables rulesets as typed values: tables, chains, rules with their matches and targets. They print as the
// lines of iptables-save(8) and are parsed from them; Diff of two rulesets is the input iptables-restore(8) needs to turn
// the second into the first, touching only what bears our mark (see Owned).
//
// What the package does not know by type (a match module, a target) is kept as the text it was, so rules of others survive.
//
// Floor 1, values: no I/O, no clock.
package xt

import (
	"slices"
	"strings"
)

// Ruleset is the rules of a host: those of iptables(8) and those of ip6tables(8).
type Ruleset struct{ V4, V6 Tables }

// Family returns the tables of one family, to read or to add to.
func (r *Ruleset) Family(v6 bool) *Tables {
	if v6 {
		return &r.V6
	}
	return &r.V4
}

// Tables is the tables of one family in the order of iptables-save.
type Tables []Table

// Table is one table: "nat", "filter", "mangle", "raw" or "security".
type Table struct {
	Name   string
	Chains []Chain
}

// Chain is one chain. Built-in chains have a policy, user-defined chains have none.
type Chain struct {
	Name   string
	Policy string // "ACCEPT" or "DROP" of a built-in chain as the kernel has it, "" in plans and of user-defined chains
	Rules  []Rule
	// Unordered says that of the rules of this chain of a plan only those of one service (Rule.service) have an order. Diff adds rules at its
	// end then and removes them wherever they are, so a service that comes or goes costs its own rules.
	Unordered bool
}

// builtin lists the built-in chains of all tables, in the order a packet meets them.
var builtin = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// Builtin reports whether the name is that of a built-in chain.
func Builtin(chain string) bool { return slices.Contains(builtin, chain) }

// ownedPrefixes are our marks: the chain names of the walkthrough, and our own.
var ownedPrefixes = []string{"KUBE-PORTALS-", "KUBE-NODEPORT-", "WEFT-"}

// Owned reports whether a chain of that name is ours (docs/adr/0003). KUBE-NODEPORTS, a chain of kube-proxy's iptables mode, is not.
func Owned(chain string) bool {
	return slices.ContainsFunc(ownedPrefixes, func(p string) bool { return strings.HasPrefix(chain, p) })
}

// Owned reports whether the rule, found in a chain that isn't ours, is ours: a jump to one of our chains.
func (r Rule) Owned() bool {
	j, ok := r.Target.(Jump)
	return ok && Owned(j.Chain)
}

// Chain returns the chain of the table, or nil.
func (t Tables) Chain(table, chain string) *Chain {
	for i := range t {
		if t[i].Name != table {
			continue
		}
		for j := range t[i].Chains {
			if t[i].Chains[j].Name == chain {
				return &t[i].Chains[j]
			}
		}
	}
	return nil
}

// Add appends rules to a chain of a table, making both where they are missing. Without rules it only makes the chain.
func (t *Tables) Add(table, chain string, rules ...Rule) {
	if c := t.Chain(table, chain); c != nil {
		c.Rules = append(c.Rules, rules...)
		return
	}
	i := slices.IndexFunc(*t, func(x Table) bool { return x.Name == table })
	if i < 0 {
		*t = append(*t, Table{Name: table})
		i = len(*t) - 1
	}
	(*t)[i].Chains = append((*t)[i].Chains, Chain{Name: chain, Rules: rules})
}

// Union puts rulesets together: the rules of a chain follow each other in the order of the arguments. In chains that aren't ours
// equal rules become one, so every part of a plan can name the jumps it needs. Built-in chains come first, as iptables-save has them.
func Union(parts ...Ruleset) Ruleset {
	var u Ruleset
	for _, v6 := range []bool{false, true} {
		out := u.Family(v6)
		index := map[[2]string]int{} // chain to position in its table
		seen := map[string]bool{}
		for _, p := range parts {
			for _, t := range *p.Family(v6) {
				for _, c := range t.Chains {
					out.merge(index, seen, t.Name, c)
				}
			}
		}
		for _, t := range *out {
			slices.SortStableFunc(t.Chains, func(a, b Chain) int { return rank(a.Name) - rank(b.Name) })
		}
	}
	return u
}

// rank orders built-in chains before all others.
func rank(chain string) int {
	if i := slices.Index(builtin, chain); i >= 0 {
		return i
	}
	return len(builtin)
}

func (t *Tables) merge(index map[[2]string]int, seen map[string]bool, table string, c Chain) {
	k := slices.IndexFunc(*t, func(x Table) bool { return x.Name == table })
	if k < 0 {
		*t = append(*t, Table{Name: table})
		k = len(*t) - 1
	}
	id := [2]string{table, c.Name}
	i, ok := index[id]
	if !ok {
		i = len((*t)[k].Chains)
		index[id] = i
		(*t)[k].Chains = append((*t)[k].Chains, Chain{Name: c.Name, Policy: c.Policy})
	}
	to := &(*t)[k].Chains[i]
	to.Unordered = to.Unordered || c.Unordered
	if Owned(c.Name) {
		to.Rules = append(to.Rules, c.Rules...)
		return
	}
	for _, r := range c.Rules {
		key := table + " " + c.Name + " " + r.String()
		if !seen[key] {
			seen[key] = true
			to.Rules = append(to.Rules, r)
		}
	}
}

// Ours returns the part of the tables that bears our mark: our chains, and the jumps to them in other chains.
func (t Tables) Ours() Tables {
	var out Tables
	for _, table := range t {
		var chains []Chain
		for _, c := range table.Chains {
			if Owned(c.Name) {
				chains = append(chains, Chain{Name: c.Name, Rules: c.Rules, Unordered: c.Unordered})
				continue
			}
			var jumps []Rule
			for _, r := range c.Rules {
				if r.Owned() {
					jumps = append(jumps, r)
				}
			}
			if jumps != nil {
				chains = append(chains, Chain{Name: c.Name, Rules: jumps})
			}
		}
		if chains != nil {
			out = append(out, Table{Name: table.Name, Chains: chains})
		}
	}
	return out
}

// Ours returns the part of the ruleset that bears our mark.
func (r Ruleset) Ours() Ruleset { return Ruleset{V4: r.V4.Ours(), V6: r.V6.Ours()} }

// String is the ruleset as iptables-save and ip6tables-save print it, each after a line that names the program.
func (r Ruleset) String() string {
	var b strings.Builder
	for _, v6 := range []bool{false, true} {
		if t := *r.Family(v6); len(t) > 0 {
			b.WriteString("# " + program(v6) + "\n" + t.String())
		}
	}
	return b.String()
}

func program(v6 bool) string {
	if v6 {
		return "ip6tables"
	}
	return "iptables"
}

// String is the tables as iptables-save(8) prints them, without its dates; counters are zero.
func (t Tables) String() string {
	var b strings.Builder
	for _, table := range t {
		b.WriteString("*" + table.Name + "\n")
		for _, c := range table.Chains {
			b.WriteString(":" + c.Name + " " + c.policyText() + " [0:0]\n")
		}
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				b.WriteString("-A " + c.Name)
				b.WriteString(r.String())
				b.WriteByte('\n')
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

func (c Chain) policyText() string {
	switch {
	case c.Policy != "":
		return c.Policy
	case Builtin(c.Name):
		return "ACCEPT"
	}
	return "-"
}
