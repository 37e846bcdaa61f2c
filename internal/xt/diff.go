package xt

import (
	"slices"
	"strconv"
	"strings"
)

// Verb is what an Op does with a chain or a rule.
type Verb uint8

// The verbs, with their iptables(8) options.
const (
	NewChain Verb = iota // -N
	Flush                // -F
	Append               // -A
	Insert               // -I, at Op.Pos
	Delete               // -D
	DelChain             // -X
)

var verbOptions = [...]string{"-N", "-F", "-A", "-I", "-D", "-X"}

// Op is one change of a table, which iptables(8) could do in one command.
type Op struct {
	V6           bool
	Table, Chain string
	Verb         Verb
	Pos          int // Insert: the position the rule gets, from 1
	Rule         Rule
}

// String is the iptables(8) command that does what the op does.
func (o Op) String() string { return program(o.V6) + " -t " + o.Table + " " + o.line() }

// line is the command without program and table.
func (o Op) line() string {
	s := verbOptions[o.Verb] + " " + o.Chain
	switch o.Verb {
	case Insert:
		s += " " + strconv.Itoa(o.Pos)
		fallthrough
	case Append, Delete:
		s += o.Rule.String()
	}
	return s
}

// Diff returns the ops that turn what of have bears our mark into want. In want, rules of chains that aren't ours are jumps to our
// chains: they are inserted at the beginning of the chain (Rule.Last: appended); where one is there already, its place among rules
// of others is left alone, so two programs that both want to be first don't fight, unless it must be (Rule.First). What does not bear our mark is never touched.
func Diff(want, have Ruleset) []Op { return diff(want, have, false) }

func diff(want, have Ruleset, part bool) []Op {
	var ops []Op
	for _, v6 := range []bool{false, true} {
		ops = append(ops, diffTables(want.Family(v6).Ours(), have.Family(v6).Ours(), *have.Family(v6), v6, part)...)
	}
	return ops
}

func diffTables(want, have, all Tables, v6, part bool) []Op {
	var ops []Op
	for _, name := range tableNames(want, have) {
		d := differ{v6: v6, table: name, want: chains(want, name), have: chains(have, name), all: all, part: part}
		d.run()
		ops = append(ops, d.ops...)
	}
	return ops
}

func tableNames(all ...Tables) []string {
	var names []string
	for _, tables := range all {
		for _, t := range tables {
			if !slices.Contains(names, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	return names
}

func chains(t Tables, table string) []Chain {
	for _, x := range t {
		if x.Name == table {
			return x.Chains
		}
	}
	return nil
}

// differ compares what is ours in one table. Chains come first, then rules, then jumps to them, and chains go last, so that
// iptables-restore finds every name it needs.
type differ struct {
	v6         bool
	table      string
	want, have []Chain
	all        Tables // what is there, rules of others too
	part       bool   // both are parts of something larger, with other rules in the unordered chains
	ops        []Op
}

func (d *differ) op(chain string, v Verb, pos int, r Rule) {
	d.ops = append(d.ops, Op{V6: d.v6, Table: d.table, Chain: chain, Verb: v, Pos: pos, Rule: r})
}

func (d *differ) run() {
	have := make(map[string][]string, len(d.have)) // the lines of each chain
	for _, c := range d.have {
		have[c.Name] = texts(c.Rules)
	}
	rules := make(map[string][]Op, len(d.want)) // what changes in each chain, its creation or flush apart
	for _, c := range d.want {
		old, exists := have[c.Name]
		switch {
		case !Owned(c.Name):
			continue
		case !exists:
			d.op(c.Name, NewChain, 0, Rule{})
		default:
			if ops, ok := d.change(c, old); ok {
				rules[c.Name] = ops
				continue
			}
			d.op(c.Name, Flush, 0, Rule{})
		}
		rules[c.Name] = d.fill(c)
	}
	gone := d.gone()
	for _, c := range gone {
		d.op(c, Flush, 0, Rule{})
	}
	for _, c := range d.want {
		d.ops = append(d.ops, rules[c.Name]...)
	}
	d.jumps()
	for _, c := range gone {
		d.op(c, DelChain, 0, Rule{})
	}
}

// gone returns our chains that are no more wanted.
func (d *differ) gone() []string {
	wanted := make(map[string]bool, len(d.want))
	for _, c := range d.want {
		wanted[c.Name] = true
	}
	var out []string
	for _, c := range d.have {
		if Owned(c.Name) && !wanted[c.Name] {
			out = append(out, c.Name)
		}
	}
	return out
}

func (d *differ) fill(c Chain) []Op {
	ops := make([]Op, len(c.Rules))
	for i, r := range c.Rules {
		ops[i] = Op{V6: d.v6, Table: d.table, Chain: c.Name, Verb: Append, Rule: r}
	}
	return ops
}

// jumps brings our rules in the chains of others into place. When those of a chain are not the wanted ones in the wanted order all
// are made anew: they are few, and the transaction is one.
func (d *differ) jumps() {
	have := map[string][]Rule{}
	for _, c := range d.have {
		have[c.Name] = c.Rules
	}
	for _, c := range d.want {
		if !Owned(c.Name) {
			d.jumpsOf(c.Name, c.Rules, have[c.Name])
			delete(have, c.Name)
		}
	}
	for _, c := range d.have {
		if rest, left := have[c.Name]; left && !Owned(c.Name) {
			d.jumpsOf(c.Name, nil, rest)
		}
	}
}

func (d *differ) jumpsOf(chain string, want, have []Rule) {
	var first, last []Rule
	for _, r := range want {
		if r.Last {
			last = append(last, r)
		} else {
			first = append(first, r)
		}
	}
	if slices.Equal(texts(slices.Concat(first, last)), texts(have)) && !d.overtaken(chain, want) {
		return
	}
	for _, r := range have {
		d.op(chain, Delete, 0, r)
	}
	for i, r := range first {
		d.op(chain, Insert, i+1, r)
	}
	for _, r := range last {
		d.op(chain, Append, 0, r)
	}
}

// overtaken reports whether a rule of others stands before one of ours that must be first.
func (d *differ) overtaken(chain string, want []Rule) bool {
	must := map[string]bool{}
	for _, r := range want {
		if r.First {
			must[r.String()] = true
		}
	}
	c := d.all.Chain(d.table, chain)
	if c == nil || len(must) == 0 {
		return false
	}
	foreign := false
	for _, r := range c.Rules {
		if foreign && must[r.String()] {
			return true
		}
		foreign = foreign || !r.Owned()
	}
	return false
}

func texts(rules []Rule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.String()
	}
	return out
}

// RestoreInput is the ops of one family as input of "iptables-restore --noflush", one transaction for each table.
func RestoreInput(ops []Op, v6 bool) string {
	var b strings.Builder
	table := ""
	for _, o := range ops {
		if o.V6 != v6 {
			continue
		}
		if o.Table != table {
			if table != "" {
				b.WriteString("COMMIT\n")
			}
			table = o.Table
			b.WriteString("*" + table + "\n")
		}
		if o.Verb == NewChain || o.Verb == Flush {
			b.WriteString(":" + o.Chain + " - [0:0]\n")
		} else {
			b.WriteString(o.line() + "\n")
		}
	}
	if table != "" {
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
