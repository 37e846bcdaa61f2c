package masq

import "net/netip"

// verdict is what a rule decides about the source address.
type verdict byte

const (
	leave      verdict = iota // nothing: rules of others may
	keep                      // it stays, whatever rules of others say
	masquerade                // it becomes the node's
)

// match is a network or, with not, everything of the family outside it; the zero match is any address.
type match struct {
	netip.Prefix
	not bool
}

func in(p netip.Prefix) match  { return match{p, false} }
func out(p netip.Prefix) match { return match{p, true} }

// rule is a rule of either rendering; both are made from the same rules, so they decide alike.
type rule struct {
	src, dst match
	marked   bool   // only packets with the mark
	bridge   string // only packets that leave by another device
	verdict  verdict
}

// first are the rules that come before those of others: what must keep its source does, even where a rule of others masquerades all that
// leaves the node or its bridge, as docker's. Packets to pods of the node itself are left to others: those that publish ports masquerade a
// pod's packets to itself.
func (f family) first() []rule {
	var rules []rule
	add := func(dst netip.Prefix, v verdict) {
		rules = append(rules, rule{src: in(f.subnet), dst: in(dst), verdict: v})
	}
	if f.Mode != None && len(f.open) > 0 || f.Mode == Outside {
		rules = append(rules, rule{dst: in(f.subnet)}, rule{marked: true}) // the way in ends here
	}
	for _, n := range f.open {
		if f.Mode != None {
			add(n, keep)
		}
	}
	if f.Mode == Outside {
		for _, u := range f.underlay {
			add(u, leave)
		}
		add(f.network, keep)
		add(f.multicast, keep)
	}
	return rules
}

// last are the rules that come after those of others, which may give packets that leave the cluster another source.
func (f family) last() []rule {
	switch f.Mode {
	case Outside:
		return f.outside()
	case Pods:
		return f.pods()
	}
	return nil
}

// outside decides as flannel's chain FLANNEL-POSTRTG does (S the node's subnet, N the network): marked packets, any to S, and S to N keep
// their source; N to anything but multicast, and others to N, do not.
func (f family) outside() []rule {
	rules := []rule{{dst: in(f.subnet)}, {marked: true}}
	for _, n := range f.open {
		rules = append(rules, rule{src: in(f.network), dst: in(n)})
	}
	for _, u := range f.underlay {
		rules = append(rules, rule{src: in(u)}, rule{src: in(f.subnet), dst: in(u), verdict: masquerade})
	}
	return append(rules,
		rule{src: in(f.subnet), dst: in(f.network)},
		rule{src: in(f.network), dst: out(f.multicast), verdict: masquerade},
		rule{src: out(f.network), dst: in(f.network), verdict: masquerade})
}

// pods is docker's rule; without a bridge, packets between pods of the node are told by their addresses.
func (f family) pods() []rule {
	var rules []rule
	for _, n := range f.open {
		rules = append(rules, rule{src: in(f.subnet), dst: in(n)})
	}
	r := rule{src: in(f.subnet), bridge: f.Bridge, verdict: masquerade}
	if f.Bridge == "" {
		r.dst = out(f.subnet)
	}
	return append(rules, r)
}

// fullyRandom reports whether source ports are chosen at random. Mode Pods is docker's rule, which keeps them where it can.
func (c Config) fullyRandom() bool { return c.Mode == Outside && !c.KeepPorts }
