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

// firewall leads load balancer addresses with source ranges to the chain of these ranges. The address itself may come too: a node that
// sends to it takes it as its source.
func (b *builder) firewall(f family) {
	if len(b.s.SourceRanges) == 0 {
		return
	}
	for _, l := range b.s.LoadBalancer {
		if a := l.Addr(); a.Is6() == f.v6 {
			c := f.ranges(append([]netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, b.s.SourceRanges...), false)
			b.addChain(c)
			b.addOnce(f.firewall(), nft.Element{Key: b.vip(a).Tuple(), Verdict: nft.Verdict{Kind: nft.Jump, Chain: c.Name}})
		}
	}
}

// firewallPort leads the service's NodePort to the chain of its source ranges. The node itself is let through.
func (b *builder) firewallPort(f family) {
	ranges, limited := proxy.NodePortSources(b.n, b.s)
	if b.s.NodePort == 0 || !limited || !proxy.HasFamily(b.s, f.v6) {
		return
	}
	c := f.ranges(ranges, true)
	b.addChain(c)
	b.addOnce(f.firewallPorts(), nft.Element{Key: b.nodePort().Tuple(), Verdict: nft.Verdict{Kind: nft.Jump, Chain: c.Name}})
}

// ranges is the chain that drops what does not come from one of the ranges, or from the node itself. Its name tells its rules.
func (f family) ranges(all []netip.Prefix, node bool) nft.Chain {
	var c nft.Chain
	var text strings.Builder
	if node {
		c.Rules = append(c.Rules, rule(nft.Match{Field: nft.FibSaddrType, Num: nft.TypeLocal}, nft.Verdict{Kind: nft.Return}))
		text.WriteString("node ")
	}
	for _, p := range disjoint(all, f.v6) {
		c.Rules = append(c.Rules, rule(nft.Match{Field: f.saddr, Prefix: p}, nft.Verdict{Kind: nft.Return}))
		text.WriteString(p.String() + " ")
	}
	c.Rules = append(c.Rules, rule(nft.Verdict{Kind: nft.Drop}))
	h := fnv.New64a()
	_, _ = h.Write([]byte(text.String())) // never fails
	c.Name = "ranges-" + strconv.FormatUint(h.Sum64(), 16) + "-" + f.suffix
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
