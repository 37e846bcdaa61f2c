package xt

import "slices"

// Apply does the ops of one family to tables, as the kernel does; it is the model that fakes and tests use. Ops that make no
// sense (a chain or rule that isn't there) do nothing.
func Apply(t Tables, ops []Op) Tables {
	var out Tables
	for _, table := range t {
		for _, c := range table.Chains {
			out.Add(table.Name, c.Name, slices.Clone(c.Rules)...)
			out.Chain(table.Name, c.Name).Policy = c.Policy
		}
	}
	for _, o := range ops {
		if o.Verb == NewChain || Builtin(o.Chain) {
			out.Add(o.Table, o.Chain)
		}
		c := out.Chain(o.Table, o.Chain)
		if c == nil {
			continue
		}
		if o.Verb != DelChain {
			c.apply(o)
			continue
		}
		i := slices.IndexFunc(out, func(t Table) bool { return t.Name == o.Table })
		out[i].Chains = slices.DeleteFunc(out[i].Chains, func(c Chain) bool { return c.Name == o.Chain })
	}
	return out
}

// apply does an op on the rules of the chain.
func (c *Chain) apply(o Op) {
	switch o.Verb {
	case Flush:
		c.Rules = nil
	case Append:
		c.Rules = append(c.Rules, o.Rule)
	case Insert:
		if o.Pos >= 1 && o.Pos <= len(c.Rules)+1 {
			c.Rules = slices.Insert(c.Rules, o.Pos-1, o.Rule)
		}
	case Delete:
		if i := slices.IndexFunc(c.Rules, func(r Rule) bool { return r.String() == o.Rule.String() }); i >= 0 {
			c.Rules = slices.Delete(c.Rules, i, i+1)
		}
	}
}
