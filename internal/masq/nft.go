package masq

import (
	"net/netip"

	"weft/internal/nft"
)

// The base chains in table inet weft.
const (
	nftPostrouting = "pods-postrouting"
	nftForward     = "pods-forward"
	nftNotrackIn   = "overlay-prerouting"
	nftNotrackOut  = "overlay-output"
)

// NFT plans the same as XT as a fragment of table inet weft. Accepting forwarded packets here does not help against another table that
// drops them: in nftables every base chain of a hook must accept.
//
// ports are the UDP ports of the overlay's outer packets, which connection tracking must not see: it would track each as a connection,
// twice, for nothing. None for overlays without them.
func NFT(c Config, ports ...uint16) nft.Table {
	t := nft.New()
	var post, forward []nft.Rule
	for _, v6 := range []bool{false, true} {
		f, ok := c.of(v6)
		if !ok {
			continue
		}
		post = append(post, f.nftPostrouting()...)
		if c.Forward {
			forward = append(forward,
				nftRule(f.src(f.network, false), accept), nftRule(f.dst(f.network, false), accept))
		}
	}
	if len(post) > 0 {
		if c.Mode == Outside {
			marked := nftRule(nft.Match{Field: nft.MetaMark, Mask: Mask, Num: Mark}, ret)
			post = append([]nft.Rule{marked}, post...)
		}
		t.Chains = append(t.Chains, nftBase(nftPostrouting, nft.NAT, nft.Postrouting, nft.PrioritySrcNAT, post))
	}
	if len(forward) > 0 {
		t.Chains = append(t.Chains, nftBase(nftForward, nft.Filter, nft.Forward, nft.PriorityFilter, forward))
	}
	if len(ports) > 0 {
		rules := notrack(ports)
		t.Chains = append(t.Chains,
			nftBase(nftNotrackIn, nft.Filter, nft.Prerouting, nft.PriorityRaw, rules),
			nftBase(nftNotrackOut, nft.Filter, nft.Output, nft.PriorityRaw, rules))
	}
	return t
}

func nftBase(name string, typ nft.ChainType, hook nft.Hook, priority int, rules []nft.Rule) nft.Chain {
	return nft.Chain{Name: name, Base: nft.Base{Type: typ, Hook: hook, Priority: priority}, Rules: rules}
}

func nftRule(s ...nft.Statement) nft.Rule { return nft.Rule{Statements: s} }

var (
	accept = nft.Verdict{Kind: nft.Accept}
	ret    = nft.Verdict{Kind: nft.Return}
)

func notrack(ports []uint16) []nft.Rule {
	var rules []nft.Rule
	for _, p := range ports {
		rules = append(rules, nftRule(
			nft.Match{Field: nft.L4Proto, Num: nft.UDP}, nft.Match{Field: nft.ThDport, Num: uint32(p)}, nft.Notrack{}))
	}
	return rules
}

// src and dst match an address, or with not any other of the family.
func (f family) src(p netip.Prefix, not bool) nft.Match {
	if p.Addr().Is6() {
		return nft.Match{Field: nft.IP6Saddr, Not: not, Prefix: p.Masked()}
	}
	return nft.Match{Field: nft.IPSaddr, Not: not, Prefix: p.Masked()}
}

func (f family) dst(p netip.Prefix, not bool) nft.Match {
	if p.Addr().Is6() {
		return nft.Match{Field: nft.IP6Daddr, Not: not, Prefix: p.Masked()}
	}
	return nft.Match{Field: nft.IPDaddr, Not: not, Prefix: p.Masked()}
}

func (f family) nftPostrouting() []nft.Rule {
	switch f.Mode {
	case Outside:
		return f.nftOutside()
	case Pods:
		return f.nftPods()
	}
	return nil
}

func (f family) nftOutside() []nft.Rule {
	masquerade := nft.Masquerade{FullyRandom: !f.KeepPorts}
	var rules []nft.Rule
	for _, u := range f.underlay {
		rules = append(rules,
			nftRule(f.src(u, false), ret),
			nftRule(f.src(f.subnet, false), f.dst(u, false), masquerade))
	}
	return append(rules,
		nftRule(f.src(f.subnet, false), f.dst(f.network, false), ret),
		nftRule(f.src(f.network, false), f.dst(f.subnet, false), ret),
		nftRule(f.src(f.network, true), f.dst(f.subnet, false), ret),
		nftRule(f.src(f.network, false), f.dst(f.multicast, true), masquerade),
		nftRule(f.src(f.network, true), f.dst(f.network, false), masquerade))
}

func (f family) nftPods() []nft.Rule {
	if f.Bridge != "" {
		return []nft.Rule{nftRule(f.src(f.subnet, false), nft.Match{Field: nft.OIFName, Not: true, Name: f.Bridge}, nft.Masquerade{})}
	}
	return []nft.Rule{nftRule(f.src(f.subnet, false), f.dst(f.subnet, true), nft.Masquerade{})}
}
