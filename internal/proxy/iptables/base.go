package iptables

import (
	"weft/internal/proxy"
	"weft/internal/xt"
)

// Base plans what a node has besides its services, in each family it has an address of: the chains, and the jumps to them.
func (p Planner) Base(n proxy.Node) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range families(n) {
		t := r.Family(v6)
		p.baseNAT(t, n, v6)
		p.baseFilter(t, n, v6)
	}
	return unordered(r)
}

func (p Planner) baseNAT(t *xt.Tables, n proxy.Node, v6 bool) {
	for _, hook := range []string{"PREROUTING", "OUTPUT"} {
		t.Add("nat", hook, jump("services", chainServices))
		t.Add("nat", hook, p.nodePortJumps(n, v6)...)
	}
	t.Add("nat", chainServices)
	t.Add("nat", chainNodePorts)
	t.Add("nat", chainMark, xt.Rule{Target: p.setMark()})
	if c := prefixesOf(v6, n.ClusterCIDRs); len(c) > 1 {
		for _, cidr := range c {
			t.Add("nat", chainOutside, xt.Rule{Src: xt.Net(cidr), Target: xt.Return})
		}
		t.Add("nat", chainOutside, xt.Rule{Target: p.setMark()})
	}
	p.masquerade(t)
}

// Masquerading is the part of All that gives marked packets the node's address, in each family the node has an address of.
func (p Planner) Masquerading(n proxy.Node) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range families(n) {
		p.masquerade(r.Family(v6))
	}
	return unordered(r)
}

func (p Planner) masquerade(t *xt.Tables) {
	t.Add("nat", "POSTROUTING", jump("masquerade what services marked", chainMasquerade))
	t.Add("nat", chainMasquerade,
		xt.Rule{Match: []xt.Match{xt.Mark{Value: p.mark(), Mask: p.mark(), Not: true}}, Target: xt.Return},
		// A tunnel may send the packet through these chains once more.
		xt.Rule{Target: xt.SetMark{Value: p.mark()}},
		xt.Rule{Target: xt.Masquerade{RandomFully: !p.KeepPorts}})
}

func (p Planner) setMark() xt.Target { return xt.SetMark{Value: p.mark(), Mask: p.mark()} }

// newOnly keeps the packets of known connections out of the lists.
var newOnly = xt.Conntrack{States: "NEW"}

func (p Planner) baseFilter(t *xt.Tables, n proxy.Node, v6 bool) {
	const unserved = "services without endpoints"
	t.Add("filter", "INPUT", jump("health checks of services", chainHealth))
	for _, hook := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		t.Add("filter", hook, jump(unserved, chainServices, newOnly))
		if hook != "FORWARD" { // a NodePort's addresses are the node's
			t.Add("filter", hook, p.nodePortJumps(n, v6, newOnly)...)
		}
	}
	t.Add("filter", "FORWARD", jump("forwarding of services", chainForward))
	t.Add("filter", chainServices)
	t.Add("filter", chainNodePorts)
	t.Add("filter", chainHealth)
	var rules []xt.Rule
	if !p.Liberal {
		// After a lost RST or FIN, late packets of a connection would pass without translation back.
		rules = append(rules, xt.Rule{Match: []xt.Match{xt.Conntrack{States: "INVALID"}}, Target: xt.Drop})
	}
	rules = append(rules,
		xt.Rule{Match: []xt.Match{xt.Mark{Value: p.mark(), Mask: p.mark()}}, Target: xt.Accept},
		xt.Rule{Match: []xt.Match{xt.Conntrack{States: "RELATED,ESTABLISHED"}}, Target: xt.Accept})
	t.Add("filter", chainForward, rules...)
}

func jump(comment, chain string, before ...xt.Match) xt.Rule {
	match := append(append([]xt.Match{}, before...), xt.Comment(comment))
	return xt.Rule{Match: match, Target: xt.Jump{Chain: chain}}
}

// nodePortJumps lead packets to the addresses that accept NodePorts; what comes from a loopback address can't be led away from there.
func (p Planner) nodePortJumps(n proxy.Node, v6 bool, before ...xt.Match) []xt.Rule {
	r := jump("service NodePorts", chainNodePorts, append(before, xt.AddrType{Dst: "LOCAL"})...)
	networks, all := n.NodePortNetworks(v6)
	if all {
		r.Dst = xt.NotNet(proxy.Loopback(v6))
		return []xt.Rule{r}
	}
	var out []xt.Rule
	for _, a := range networks {
		r.Dst = xt.Net(a)
		out = append(out, r)
	}
	return out
}
