package masq

import (
	"slices"

	"weft/internal/nft"
)

// The base chains in table inet weft.
const (
	nftKeep        = "pods-keep"
	nftPostrouting = "pods-postrouting"
)

// NFT plans the same as XT as a fragment of table inet weft, but nothing that accepts forwarded packets: in nftables every base chain of a
// hook must accept, so an accept of ours would say nothing about another table that drops (see Forwarding).
func NFT(c Config) nft.Table {
	t := nft.New()
	var first, last []nft.Rule
	for _, v6 := range []bool{false, true} {
		if f, ok := c.of(v6); ok {
			first, last = f.nft(first, f.first()), f.nft(last, f.last())
		}
	}
	// The first to decide about a connection's source wins. Rules of others are at priority srcnat as a rule, iptables' always.
	if len(first) > 0 {
		t.Chains = append(t.Chains, nftBase(nftKeep, nft.NAT, nft.Postrouting, nft.PrioritySrcNAT-1, first))
	}
	if len(last) > 0 {
		t.Chains = append(t.Chains, nftBase(nftPostrouting, nft.NAT, nft.Postrouting, nft.PrioritySrcNAT+1, last))
	}
	return t
}

func nftBase(name string, typ nft.ChainType, hook nft.Hook, priority int, rules []nft.Rule) nft.Chain {
	return nft.Chain{Name: name, Base: nft.Base{Type: typ, Hook: hook, Priority: priority}, Rules: rules}
}

func nftRule(s ...nft.Statement) nft.Rule { return nft.Rule{Statements: s} }

// nft appends the rules of the family. Those about marks are for both families: they are there once.
func (f family) nft(to []nft.Rule, rules []rule) []nft.Rule {
	v6 := f.network.Addr().Is6()
	last := map[verdict]nft.Statement{
		leave: nft.Verdict{Kind: nft.Return}, keep: nft.KeepSource{V6: v6}, masquerade: nft.Masquerade{FullyRandom: f.fullyRandom()},
	}
	mark := nft.Match{Field: nft.MetaMark, Mask: f.mark(), Num: f.mark()}
	asked := slices.ContainsFunc(to, func(r nft.Rule) bool { return slices.Contains(r.Statements, nft.Statement(mark)) })
	for _, r := range rules {
		var s []nft.Statement
		if r.marked {
			if asked {
				continue
			}
			s = append(s, mark)
		}
		fields := [2]nft.Field{nft.IPSaddr, nft.IPDaddr}
		if v6 {
			fields = [2]nft.Field{nft.IP6Saddr, nft.IP6Daddr}
		}
		for i, m := range []match{r.src, r.dst} {
			if m.IsValid() {
				s = append(s, nft.Match{Field: fields[i], Not: m.not, Prefix: m.Masked()})
			}
		}
		if r.bridge != "" {
			s = append(s, nft.Match{Field: nft.OIFName, Not: true, Name: r.bridge})
		}
		to = append(to, nftRule(append(s, last[r.verdict])...))
	}
	return to
}
