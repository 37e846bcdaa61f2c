package masq

import "weft/internal/xt"

// The chains.
const (
	chainPostrouting = "WEFT-POSTROUTING" // table nat
	chainForward     = "WEFT-FORWARD"     // table filter
)

// XT plans the iptables rules. In mode Outside they decide as flannel's chain FLANNEL-POSTRTG does (S the node's subnet, N the network):
// marked packets, S to N, N to S, and others to S keep their source; N to anything but multicast, and others to N, do not.
func XT(c Config) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		f, ok := c.of(v6)
		if !ok {
			continue
		}
		t := r.Family(v6)
		if rules := f.postrouting(); len(rules) > 0 {
			t.Add("nat", "POSTROUTING", jump("masquerade pods", chainPostrouting))
			t.Add("nat", chainPostrouting, rules...)
		}
		if c.Forward {
			t.Add("filter", "FORWARD", jump("forward pods", chainForward))
			t.Add("filter", chainForward,
				xt.Rule{Src: xt.Net(f.network), Target: xt.Accept}, xt.Rule{Dst: xt.Net(f.network), Target: xt.Accept})
		}
	}
	return r
}

// jump goes to the end of its chain: rules of others about the same packets come first.
func jump(comment, chain string) xt.Rule {
	return xt.Rule{Match: []xt.Match{xt.Comment(comment)}, Target: xt.Jump{Chain: chain}, Last: true}
}

func (f family) postrouting() []xt.Rule {
	switch f.Mode {
	case Outside:
		return f.outside()
	case Pods:
		return f.pods()
	}
	return nil
}

func (f family) outside() []xt.Rule {
	masquerade := xt.Masquerade{RandomFully: !f.KeepPorts}
	rules := []xt.Rule{{Match: []xt.Match{xt.Mark{Value: Mark, Mask: Mask}}, Target: xt.Return}}
	for _, u := range f.underlay {
		rules = append(rules,
			xt.Rule{Src: xt.Net(u), Target: xt.Return},
			xt.Rule{Src: xt.Net(f.subnet), Dst: xt.Net(u), Target: masquerade})
	}
	return append(rules,
		between(xt.Net(f.subnet), xt.Net(f.network), xt.Return),
		between(xt.Net(f.network), xt.Net(f.subnet), xt.Return),
		between(xt.NotNet(f.network), xt.Net(f.subnet), xt.Return),
		between(xt.Net(f.network), xt.NotNet(f.multicast), masquerade),
		between(xt.NotNet(f.network), xt.Net(f.network), masquerade))
}

// pods is docker's rule; without a bridge, packets between pods of the node are told by their addresses.
func (f family) pods() []xt.Rule {
	r := xt.Rule{Src: xt.Net(f.subnet), Target: xt.Masquerade{}}
	if f.Bridge != "" {
		r.Out = xt.Iface{Name: f.Bridge, Not: true}
	} else {
		r.Dst = xt.NotNet(f.subnet)
	}
	return []xt.Rule{r}
}

func between(src, dst xt.Address, t xt.Target) xt.Rule { return xt.Rule{Src: src, Dst: dst, Target: t} }
