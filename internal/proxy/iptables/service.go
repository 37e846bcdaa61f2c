package iptables

import (
	"net/netip"
	"strings"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/xt"
)

// What follows the service's name in comments.
const (
	clusterAddress  = " cluster IP"
	externalAddress = " external IP"
	balancerAddress = " load balancer IP"
	nodePort        = " node port"
	noEndpoints     = " has no endpoints"
	noLocal         = " has no local endpoints"
	notInRange      = " is not for this source"
)

// Plan plans one service port: what it adds to Base. It implements proxy.Backend.
func (p Planner) Plan(n proxy.Node, s api.ServicePort) xt.Ruleset {
	var r xt.Ruleset
	if !known(s.Protocol) || s.Port == 0 {
		return r
	}
	s = clean(s)
	for _, v6 := range families(n) {
		b := &builder{
			Planner: p, n: n, s: s, v6: v6, t: r.Family(v6), cidrs: prefixesOf(v6, n.ClusterCIDRs),
			all: proxy.Endpoints(n, s, v6, proxy.Cluster), local: proxy.Endpoints(n, s, v6, proxy.Local),
		}
		b.plan()
	}
	return unordered(r)
}

func known(p api.Protocol) bool { return p == api.TCP || p == api.UDP || p == api.SCTP }

// builder plans one service port in one family.
type builder struct {
	Planner
	n          proxy.Node
	s          api.ServicePort
	v6         bool
	cidrs      []netip.Prefix
	all, local []netip.AddrPort // endpoints
	t          *xt.Tables
}

func (b *builder) plan() {
	cluster := of(b.v6, b.s.ClusterIPs)
	for _, a := range cluster {
		b.cluster(a)
	}
	for _, a := range of(b.v6, b.s.External) {
		b.exposed(b.rule(xt.IP(a), b.s.Port, externalAddress), chainServices)
	}
	for _, l := range b.s.LoadBalancer {
		if a := l.Addr(); a.Is6() == b.v6 {
			b.balancer(a)
		}
	}
	// A NodePort has no address: the family is that of the service.
	if b.s.NodePort != 0 && len(cluster) > 0 {
		b.port()
	}
	if b.s.HealthCheckNodePort != 0 {
		b.t.Add("filter", chainHealth, xt.Rule{
			Proto:  xt.Proto{Name: "tcp"},
			Match:  []xt.Match{xt.Comment(b.s.Name.String() + " health check node port"), xt.DPort("tcp", b.s.HealthCheckNodePort)},
			Target: xt.Accept,
		})
	}
	b.chains()
}

func (b *builder) proto() string { return strings.ToLower(string(b.s.Protocol)) }

// rule matches packets to an address and port; its first match is the comment.
func (b *builder) rule(dst xt.Address, port uint16, comment string) xt.Rule {
	return xt.Rule{
		Dst: dst, Proto: xt.Proto{Name: b.proto()},
		Match: []xt.Match{xt.Comment(b.s.Name.String() + comment), xt.DPort(b.proto(), port)},
	}
}

// chain is the name of one of the service port's chains.
func (b *builder) chain(kind string) string { return chainName(kind, b.s) }

func to(r xt.Rule, chain string) xt.Rule { r.Target = xt.Jump{Chain: chain}; return r }

// remark returns r with another comment and a target.
func (b *builder) remark(r xt.Rule, comment string, t xt.Target) xt.Rule {
	r.Match = append([]xt.Match{xt.Comment(b.s.Name.String() + comment)}, r.Match[1:]...)
	r.Target = t
	return r
}

// cluster plans a cluster address. Packets to one whose endpoints are all on other nodes (internalTrafficPolicy Local) are dropped:
// they may come back. Where there are none at all they are rejected.
func (b *builder) cluster(a netip.Addr) {
	r := b.rule(xt.IP(a), b.s.Port, clusterAddress)
	kind, endpoints := kindCluster, b.all
	if proxy.Internal(b.s) == proxy.Local {
		kind, endpoints = kindLocal, b.local
	}
	if len(endpoints) == 0 {
		b.unserved(r, chainServices)
		return
	}
	b.t.Add("nat", chainServices, to(r, b.chain(kind)))
	b.t.Add("nat", b.chain(kind), b.masqueraded(r)...)
}

// masqueraded marks connections to a cluster address that must have the node's address as source: those from outside the pod networks,
// whose answers would not come back this way, and those of the node itself, as its address was chosen for the way to the service
// and may be none that the overlay carries.
func (b *builder) masqueraded(r xt.Rule) []xt.Rule {
	if b.MasqueradeAll {
		return []xt.Rule{to(r, chainMark)}
	}
	own := r
	own.Match = append([]xt.Match{xt.AddrType{Src: "LOCAL"}}, r.Match...)
	rules := []xt.Rule{to(own, chainMark)}
	switch len(b.cidrs) {
	case 0:
	case 1:
		r.Src = xt.NotNet(b.cidrs[0])
		rules = append(rules, to(r, chainMark))
	default:
		rules = append(rules, to(r, chainOutside))
	}
	return rules
}

// exposed plans an address or NodePort for clients outside the cluster.
func (b *builder) exposed(r xt.Rule, chain string) {
	if len(b.all) > 0 {
		b.t.Add("nat", chain, to(r, b.chain(kindExternal)))
	}
	b.unservedOutside(r, chain)
}

// balancer plans a load balancer address; with source ranges only packets from there are accepted, others dropped.
func (b *builder) balancer(a netip.Addr) {
	r := b.rule(xt.IP(a), b.s.Port, balancerAddress)
	if len(b.s.SourceRanges) == 0 {
		b.exposed(r, chainServices)
		return
	}
	if len(b.all) > 0 {
		b.t.Add("nat", chainServices, to(r, b.chain(kindFirewall)))
	}
	for _, src := range b.sources(a) {
		allowed := r
		allowed.Src = xt.Net(src)
		b.unservedOutside(allowed, chainServices)
	}
	b.t.Add("filter", chainServices, b.remark(r, notInRange, xt.Drop))
}

// port plans the NodePort; with source ranges only packets from there and from the node itself are accepted, others dropped.
func (b *builder) port() {
	r := b.rule(xt.Address{}, b.s.NodePort, nodePort)
	ranges, limited := proxy.NodePortSources(b.n, b.s)
	if !limited {
		b.exposed(r, chainNodePorts)
		return
	}
	if len(b.all) > 0 {
		b.t.Add("nat", chainNodePorts, to(r, b.chain(kindPortFW)))
	}
	own := r
	own.Match = append([]xt.Match{r.Match[0], xt.AddrType{Src: "LOCAL"}}, r.Match[1:]...)
	b.unservedOutside(own, chainNodePorts)
	for _, src := range prefixesOf(b.v6, ranges) {
		allowed := r
		allowed.Src = xt.Net(src)
		b.unservedOutside(allowed, chainNodePorts)
	}
	b.t.Add("filter", chainNodePorts, b.remark(r, notInRange, xt.Drop))
}

// sources are the source ranges of the family, and a load balancer address itself: a node that sends to it takes it as its source.
func (b *builder) sources(balancers ...netip.Addr) []netip.Prefix {
	out := prefixesOf(b.v6, b.s.SourceRanges)
	for _, a := range balancers {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return unique(out)
}

// unservedOutside plans what becomes of packets from outside the cluster where no endpoint is in their scope.
func (b *builder) unservedOutside(r xt.Rule, chain string) {
	if len(b.all) == 0 || proxy.External(b.s) == proxy.Local && len(b.local) == 0 {
		b.unserved(r, chain)
	}
}

// unserved drops or rejects what no rule of table nat takes.
func (b *builder) unserved(r xt.Rule, chain string) {
	if len(b.all) > 0 {
		b.t.Add("filter", chain, b.remark(r, noLocal, xt.Drop))
		return
	}
	b.t.Add("filter", chain, b.remark(r, noEndpoints, b.reject()))
}

// reject answers TCP with a reset, not with the port unreachable of the other protocols: the kernel limits ICMP errors to a few a second
// for each receiver, and a client that gets none waits for its next SYN.
func (b *builder) reject() xt.Target {
	switch {
	case b.s.Protocol == api.TCP:
		return xt.Reject{With: "tcp-reset"}
	case b.v6:
		return xt.Reject{With: "icmp6-port-unreachable"}
	}
	return xt.Reject{With: "icmp-port-unreachable"}
}
