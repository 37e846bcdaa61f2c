package masq

import "weft/internal/xt"

// The chains.
const (
	chainKeep        = "WEFT-KEEP"        // table nat
	chainPostrouting = "WEFT-POSTROUTING" // table nat
	chainForward     = "WEFT-FORWARD"     // table filter
)

// XT plans the iptables rules: those about source addresses, and Forwarding's.
func XT(c Config) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		f, ok := c.of(v6)
		if !ok {
			continue
		}
		t := r.Family(v6)
		if rules := f.first(); len(rules) > 0 {
			t.Add("nat", "POSTROUTING", jump("sources that stay", chainKeep, false))
			t.Add("nat", chainKeep, f.xt(rules)...)
		}
		if rules := f.last(); len(rules) > 0 {
			t.Add("nat", "POSTROUTING", jump("masquerade pods", chainPostrouting, true))
			t.Add("nat", chainPostrouting, f.xt(rules)...)
		}
	}
	return xt.Union(r, Forwarding(c))
}

// Forwarding plans the iptables rules that accept forwarded packets of the pod network; without Config.Forward there are none. They stand
// at the end of FORWARD, as flannel's do: what rules of others drop before them stays dropped.
func Forwarding(c Config) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		f, ok := c.of(v6)
		if !ok || !c.Forward {
			continue
		}
		t := r.Family(v6)
		t.Add("filter", "FORWARD", jump("forward pods", chainForward, true))
		t.Add("filter", chainForward,
			xt.Rule{Src: xt.Net(f.network), Target: xt.Accept}, xt.Rule{Dst: xt.Net(f.network), Target: xt.Accept})
	}
	return r
}

// jump leads to a chain of ours, before the rules of others about the same packets or after them.
func jump(comment, chain string, last bool) xt.Rule {
	return xt.Rule{Match: []xt.Match{xt.Comment(comment)}, Target: xt.Jump{Chain: chain}, Last: last, First: !last}
}

// xt renders rules. An accept ends the nat table's chains: no rule after it changes the source.
func (f family) xt(rules []rule) []xt.Rule {
	targets := map[verdict]xt.Target{leave: xt.Return, keep: xt.Accept, masquerade: xt.Masquerade{RandomFully: f.fullyRandom()}}
	var all []xt.Rule
	for _, r := range rules {
		x := xt.Rule{Src: xt.Address{Prefix: r.src.Prefix, Not: r.src.not}, Dst: xt.Address{Prefix: r.dst.Prefix, Not: r.dst.not}}
		x.Target = targets[r.verdict]
		if r.marked {
			x.Match = []xt.Match{xt.Mark{Value: f.mark(), Mask: f.mark()}}
		}
		if r.bridge != "" {
			x.Out = xt.Iface{Name: r.bridge, Not: true}
		}
		all = append(all, x)
	}
	return all
}
