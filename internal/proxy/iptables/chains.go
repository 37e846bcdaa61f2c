package iptables

import (
	"net/netip"
	"strconv"

	"weft/internal/proxy"
	"weft/internal/xt"
)

// chains plans the chains of the service port that the rules for its addresses lead to.
func (b *builder) chains() {
	if len(b.all) == 0 {
		return
	}
	reached := func(kind string) bool { return b.reached(b.chain(kind)) }
	if reached(kindFirewall) {
		for _, src := range b.sources(b.balancers()...) {
			b.t.Add("nat", b.chain(kindFirewall), to(xt.Rule{Src: xt.Net(src)}, b.chain(kindExternal)))
		}
	}
	if reached(kindPortFW) {
		own := xt.Rule{Match: append(b.comment(" from the node"), xt.AddrType{Src: "LOCAL"})}
		b.t.Add("nat", b.chain(kindPortFW), to(own, b.chain(kindExternal)))
		ranges, _ := proxy.NodePortSources(b.n, b.s)
		for _, src := range prefixesOf(b.v6, ranges) {
			b.t.Add("nat", b.chain(kindPortFW), to(xt.Rule{Src: xt.Net(src)}, b.chain(kindExternal)))
		}
	}
	if reached(kindExternal) {
		b.external()
	}
	if reached(kindCluster) {
		b.draw(kindCluster, b.all)
	}
	if reached(kindLocal) {
		b.draw(kindLocal, b.local)
	}
}

// reached reports whether a rule leads to the chain.
func (b *builder) reached(chain string) bool {
	for _, t := range *b.t {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				if r.Target == (xt.Jump{Chain: chain}) {
					return true
				}
			}
		}
	}
	return false
}

func (b *builder) balancers() []netip.Addr {
	var out []netip.Addr
	for _, l := range b.s.LoadBalancer {
		if l.Addr().Is6() == b.v6 {
			out = append(out, l.Addr())
		}
	}
	return out
}

// external plans the chain of packets to addresses for clients outside the cluster. They are masqueraded, as the answers must come
// back through this node, unless only the node's own endpoints serve them (externalTrafficPolicy Local): then pods and the node reach
// all endpoints, and others the node's own with their source address.
func (b *builder) external() {
	chain, all := b.chain(kindExternal), b.chain(kindCluster)
	if proxy.External(b.s) == proxy.Cluster {
		if !b.s.MasqueradeDisabled {
			b.t.Add("nat", chain, to(xt.Rule{Match: b.comment(" from outside")}, chainMark))
		}
		b.t.Add("nat", chain, to(xt.Rule{}, all))
		return
	}
	own := append(b.comment(" from the node"), xt.AddrType{Src: "LOCAL"})
	b.t.Add("nat", chain, to(xt.Rule{Match: own}, chainMark), to(xt.Rule{Match: own}, all))
	for _, cidr := range b.cidrs {
		b.t.Add("nat", chain, to(xt.Rule{Src: xt.Net(cidr), Match: b.comment(" from pods")}, all))
	}
	if len(b.local) > 0 {
		b.t.Add("nat", chain, to(xt.Rule{}, b.chain(kindLocal)))
	}
}

func (b *builder) comment(text string) []xt.Match {
	return []xt.Match{xt.Comment(b.s.Name.String() + text)}
}

// draw plans a chain that sends to one of the endpoints: to the one the client had (session affinity), else to each with the
// probability of its weight.
func (b *builder) draw(kind string, endpoints []netip.AddrPort) {
	rules := make([]xt.Rule, 0, 2*len(endpoints))
	for _, e := range endpoints {
		if b.affinity() > 0 {
			had := append(b.comment(" -> "+e.String()), b.recent("--rcheck --seconds "+strconv.Itoa(b.affinity())+" --reap", e))
			rules = append(rules, to(xt.Rule{Match: had}, b.endpointChain(e)))
		}
	}
	weights := proxy.Weights(b.s, endpoints)
	left := total(weights, len(endpoints))
	for i, e := range endpoints {
		r := xt.Rule{Match: b.comment(" -> " + e.String())}
		share := 1
		if weights != nil {
			share = int(weights[i])
		}
		if i < len(endpoints)-1 {
			r.Match = append(r.Match, xt.Probability(float64(share)/float64(left)))
		}
		left -= share
		rules = append(rules, to(r, b.endpointChain(e)))
		b.endpoint(e)
	}
	b.t.Add("nat", b.chain(kind), rules...)
}

// total is the sum of the weights, of n equal ones where there are none.
func total(weights []uint8, n int) int {
	if weights == nil {
		return n
	}
	sum := 0
	for _, w := range weights {
		sum += int(w)
	}
	return sum
}

// maxAffinity is the longest session affinity timeout the API takes, in seconds.
const maxAffinity = 86400

func (b *builder) affinity() int { return min(b.s.AffinitySeconds, maxAffinity) }

// recent is a match of the list of clients that were sent to the endpoint (iptables-extensions(8), "recent"), as iptables-save
// prints it.
func (b *builder) recent(options string, e netip.AddrPort) xt.Match {
	mask := "255.255.255.255"
	if b.v6 {
		mask = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	}
	return xt.Raw("-m recent " + options + " --name " + b.endpointChain(e) + " --mask " + mask + " --rsource")
}

func (b *builder) endpointChain(e netip.AddrPort) string {
	return chainName(kindEndpoint, b.s, e.String())
}

// endpoint plans the chain of an endpoint. A pod that draws itself is masqueraded: it would not take answers from itself.
func (b *builder) endpoint(e netip.AddrPort) {
	chain := b.endpointChain(e)
	if b.t.Chain("nat", chain) != nil {
		return
	}
	b.t.Add("nat", chain, to(xt.Rule{Src: xt.IP(e.Addr()), Match: b.comment("")}, chainMark))
	if b.affinity() > 0 {
		b.t.Add("nat", chain, xt.Rule{Match: append(b.comment(""), b.recent("--set", e))})
	}
	b.t.Add("nat", chain, xt.Rule{
		Proto: xt.Proto{Name: b.proto()}, Match: b.comment(""), Target: xt.DNAT{To: e},
	})
}
