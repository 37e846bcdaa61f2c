package nftables

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"weft/internal/nft"
	"weft/internal/proxy"
)

// sources are those that may reach an address or a port; the zero value are all.
type sources struct {
	limited bool
	ranges  []netip.Prefix
	node    bool // and the node itself
}

// sources are those of a load balancer's address with source ranges. The address itself may come too: a node that sends to it takes it as
// its source.
func (b *builder) sources(a netip.Addr) sources {
	if len(b.s.SourceRanges) == 0 || !slices.ContainsFunc(b.s.LoadBalancer, func(l netip.Prefix) bool { return l.Addr() == a }) {
		return sources{}
	}
	return sources{limited: true, ranges: append([]netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, b.s.SourceRanges...)}
}

// portSources are those of the service's NodePort.
func (b *builder) portSources() sources {
	ranges, limited := proxy.NodePortSources(b.n, b.s)
	return sources{limited, ranges, true}
}

// ranges is the chain that leads what comes from the sources on, and drops the rest. Its name tells its rules.
func (f family) ranges(from sources, next string) nft.Chain {
	var c nft.Chain
	var text strings.Builder
	on := nft.Verdict{Kind: nft.Goto, Chain: next}
	if from.node {
		c.Rules = append(c.Rules, rule(nft.Match{Field: nft.FibSaddrType, Num: nft.TypeLocal}, on))
		text.WriteString("node ")
	}
	for _, p := range disjoint(from.ranges, f.v6) {
		c.Rules = append(c.Rules, rule(nft.Match{Field: f.saddr, Prefix: p}, on))
		text.WriteString(p.String() + " ")
	}
	c.Rules = append(c.Rules, rule(nft.Verdict{Kind: nft.Drop}))
	h := fnv.New64a()
	_, _ = h.Write([]byte(text.String())) // never fails
	c.Name = "ranges-" + strconv.FormatUint(h.Sum64(), 16) + "-" + next
	return c
}

// disjoint returns the prefixes of the family that none of the others contains, the shortest first.
func disjoint(all []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	for _, p := range sorted {
		if p.Addr().Is6() == v6 && !slices.ContainsFunc(out, p.Overlaps) {
			out = append(out, p.Masked())
		}
	}
	return out
}
