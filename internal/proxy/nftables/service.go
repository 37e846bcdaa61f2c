package nftables

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/nft"
	"weft/internal/proxy"
)

// Plan plans one service port for the node, as Plans.Plan does.
func (p Planner) Plan(n proxy.Node, s api.ServicePort) nft.Table { return p.For(n).Plan(s) }

// builder puts the fragment of one service port together.
type builder struct {
	*Plans
	s     api.ServicePort
	proto uint8
	t     nft.Table
}

// add adds an element to a set.
func (b *builder) add(s nft.Set, e nft.Element) {
	i := b.set(s)
	b.t.Sets[i].Elements = append(b.t.Sets[i].Elements, e)
}

// set returns the index of a set in the fragment: there are few.
func (b *builder) set(s nft.Set) int {
	if b.t.Sets == nil {
		b.t.Sets = make([]nft.Set, 0, 4)
	}
	for i := range b.t.Sets {
		if b.t.Sets[i].Name == s.Name {
			return i
		}
	}
	b.t.Sets = append(b.t.Sets, s)
	return len(b.t.Sets) - 1
}

func (b *builder) addChain(c nft.Chain) {
	if b.t.Chain(c.Name) == nil {
		b.t.Chains = append(b.t.Chains, c)
	}
}

func (b *builder) vip(a netip.Addr) nft.TupleBuilder {
	return make(nft.TupleBuilder, 0, 28).Addr(a).Proto(b.proto).Port(b.s.Port)
}

func (b *builder) nodePort() nft.TupleBuilder {
	return make(nft.TupleBuilder, 0, 12).Proto(b.proto).Port(b.s.NodePort)
}

// external are the addresses for clients outside the cluster.
func (b *builder) external(f family) []netip.Addr {
	out := slices.Clone(b.s.External)
	for _, l := range b.s.LoadBalancer {
		out = append(out, l.Addr())
	}
	return slices.DeleteFunc(out, func(a netip.Addr) bool { return a.Is6() != f.v6 })
}

func (b *builder) family(f family) {
	every := proxy.Endpoints(b.n, b.s, f.v6, proxy.Cluster)
	internal := every
	if in := proxy.Internal(b.s); in != proxy.Cluster {
		internal = proxy.Endpoints(b.n, b.s, f.v6, in)
	}
	for _, a := range b.s.ClusterIPs {
		if a.Is6() == f.v6 {
			t := b.address(f, a)
			b.add(t.clusterIPs, nft.Element{Key: t.key[:len(t.key)-portLen]})
			b.cluster(t, internal, len(every) == 0)
		}
	}
	for _, a := range b.external(f) {
		if !slices.Contains(b.s.ClusterIPs, a) {
			b.exposed(b.address(f, a), every)
		}
	}
	// A NodePort has no address: the family is that of the service.
	if b.s.NodePort != 0 && proxy.HasFamily(b.s, f.v6) {
		t := b.port(f)
		b.add(f.nodePortSet(), nft.Element{Key: t.key})
		b.exposed(t, every)
	}
	b.hairpin(f)
}

// portLen is the length of a protocol and a port in a key.
const portLen = 8

// target is where packets are sent to: an address and a port, or a NodePort.
type target struct {
	list
	*lookups
	key     nft.Tuple
	sources sources
}

func (b *builder) address(f family, a netip.Addr) target {
	l := list{family: f}
	return target{l, b.lookups(l), b.vip(a).Tuple(), b.sources(a)}
}

func (b *builder) port(f family) target {
	l := list{family: f, port: true}
	return target{l, b.lookups(l), b.nodePort().Tuple(), b.portSources()}
}

// cluster plans a cluster address. Packets to one whose endpoints are all on other nodes (internalTrafficPolicy Local) are dropped: they
// may come back. Where there are none at all they are rejected, as to every port that a cluster address does not have.
func (b *builder) cluster(t target, endpoints []netip.AddrPort, none bool) {
	if len(endpoints) == 0 && !none {
		b.add(t.dropped, nft.Element{Key: t.key})
	}
	c := choice{list: t.list, filling: b.fill(endpoints), masq: keep, affinity: b.s.AffinitySeconds}
	switch {
	case b.MasqueradeAll:
		c.masq = all
	case t.v6 && b.cidrs[1] || !t.v6 && b.cidrs[0]:
		c.masq = outside
	}
	b.lead(t, b.choose(t, c))
}

// lead makes the target lead to the chain, by that of the source ranges where there are any. It returns when nobody decides about the packet.
func (b *builder) lead(t target, chain string) {
	if t.sources.limited {
		c := t.ranges(t.sources, chain)
		b.addChain(c)
		chain = c.Name
	}
	b.add(t.verdicts, nft.Element{Key: t.key, Verdict: nft.Verdict{Kind: nft.Jump, Chain: chain}})
}

// choose adds the chain of a choice and the list of endpoints it draws from, and returns the chain's name.
func (b *builder) choose(t target, c choice) string {
	chain := b.chain(c)
	b.addChain(chain)
	if c.affinity == 0 {
		b.slots(t, c)
		return chain.Name
	}
	b.set(c.recent())
	b.set(c.picks())
	for k := range c.full {
		e := c.endpointChain(b.proto, c.at(k))
		b.addChain(e)
		v := nft.Verdict{Kind: nft.Goto, Chain: e.Name}
		b.add(c.picks(), nft.Element{Key: t.slot(k), Verdict: v})
	}
	return chain.Name
}

func (t target) slot(k int) nft.Tuple { return t.key + nft.TupleBuilder(nil).Num(uint32(k)).Tuple() }

// slots adds the list of endpoints. The keys and values of a list are parts of one text: they come and go together.
func (b *builder) slots(t target, c choice) {
	elements := &b.t.Sets[b.set(b.lookups(c.list).endpoints)].Elements
	*elements = slices.Grow(*elements, c.full)
	text := nft.TupleBuilder(b.bytes[:0])
	for k := range c.full {
		to := c.at(k)
		text = append(text, t.key...)
		text = text.Num(uint32(k)).Addr(to.Addr()).Port(to.Port())
	}
	b.bytes = text
	all := text.Tuple()
	for range c.full {
		n, end := len(t.key)+4, len(text)/c.full
		*elements = append(*elements, nft.Element{Key: all[:n], Data: all[n:end]})
		all = all[end:]
	}
}

// exposed plans an address or port for clients outside the cluster. Their source is masqueraded, as the answers must come back
// through this node, unless only the node's own endpoints serve them.
func (b *builder) exposed(t target, every []netip.AddrPort) {
	if len(every) == 0 {
		b.add(t.rejected, nft.Element{Key: t.key})
	}
	affinity := b.s.AffinitySeconds
	if proxy.External(b.s) == proxy.Cluster {
		c := choice{list: t.list, filling: b.fill(every), masq: all, affinity: affinity}
		if b.s.MasqueradeDisabled {
			c.masq = keep
		}
		b.lead(t, b.choose(t, c))
		return
	}
	inside := choice{list: t.list, filling: b.fill(every), masq: keep, affinity: affinity}
	b.choose(t, inside)
	local := proxy.Endpoints(b.n, b.s, t.v6, proxy.Local)
	if len(local) == 0 && len(every) > 0 {
		b.add(t.dropped, nft.Element{Key: t.key})
	}
	t.local = true
	own := choice{list: t.list, filling: b.fill(local), masq: keep, affinity: affinity}
	b.choose(t, own)
	split := b.split(b.n, inside, own)
	b.addChain(split)
	b.lead(t, split.Name)
}

// hairpin notes the node's own endpoints: a pod may draw itself.
func (b *builder) hairpin(f family) {
	for _, e := range b.s.Endpoints {
		if a := e.Addr.Addr(); e.Node == b.n.Name && a.Is6() == f.v6 {
			b.addOnce(f.hairpin(), nft.Element{Key: nft.TupleBuilder(nil).Addr(a).Addr(a).Tuple()})
		}
	}
}

// addOnce adds an element that may be there already.
func (b *builder) addOnce(s nft.Set, e nft.Element) {
	if i := b.set(s); !slices.Contains(b.t.Sets[i].Elements, e) {
		b.t.Sets[i].Elements = append(b.t.Sets[i].Elements, e)
	}
}

// clean returns the service without addresses that no packet can have or go to.
func clean(s api.ServicePort) api.ServicePort {
	bad := func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() }
	badEndpoint := func(e api.Endpoint) bool { return bad(e.Addr.Addr()) || e.Addr.Port() == 0 }
	badPrefix := func(p netip.Prefix) bool { return !p.IsValid() || p.Addr().Is4In6() }
	badBalancer := func(p netip.Prefix) bool { return badPrefix(p) || bad(p.Addr()) }
	s.ClusterIPs, s.External = without(s.ClusterIPs, bad), without(s.External, bad)
	s.LoadBalancer, s.SourceRanges = without(s.LoadBalancer, badBalancer), without(s.SourceRanges, badPrefix)
	s.Endpoints = without(s.Endpoints, badEndpoint)
	s.AffinitySeconds = max(0, s.AffinitySeconds)
	return s
}

// without returns the list without the bad ones. It does not change the list it gets.
func without[T any](list []T, bad func(T) bool) []T {
	if !slices.ContainsFunc(list, bad) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), bad)
}
