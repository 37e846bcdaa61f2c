// Package nftables plans services as nftables values: the default proxy mode.
//
// A service costs elements of maps, not chains: a verdict map leads from address, protocol and port to a chain for services with up to
// 4, 16, 32, 64 and so on endpoints, which draws a random slot and takes the endpoint from a second map. A changed endpoint changes elements
// of that map.
//
//	prerouting, output   ip daddr . meta l4proto . th dport vmap @vips4         10.254.0.1 . tcp . 443 : jump n4-4
//	chain n4-4           dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 4 map @eps4
//
// NodePorts have maps of their own without the address. A service's chain that finds no endpoint leads on to where the sets rejected4,
// dropped4, rejected-ports4 and dropped-ports4 say what becomes of the packet. Names that end in 4 and 6 are those of the two families.
//
// Floor 2, planners: pure.
package nftables

import (
	"net/netip"

	"weft/internal/nft"
	"weft/internal/proxy"
)

// Planner plans services for a node, with the proxy's settings.
type Planner struct {
	// MasqueradeAll gives all connections to services the node's address as their source, not only those that need it.
	MasqueradeAll bool
	// Mark is the bit of the packet mark that asks for masquerading; 0 is DefaultMark.
	Mark uint32
	// KeepPorts lets masqueraded connections keep their source ports where possible.
	KeepPorts bool
	// Liberal lets packets pass that connection tracking calls invalid (kube-proxy's --conntrack-tcp-be-liberal).
	Liberal bool
}

// DefaultMark is the bit kube-proxy uses for the same.
const DefaultMark = 0x4000

func (p Planner) mark() uint32 {
	if p.Mark == 0 {
		return DefaultMark
	}
	return p.Mark
}

// The chains every node has.
const (
	chainPrerouting  = "services-prerouting"
	chainOutput      = "services-output"
	chainPostrouting = "services-postrouting"
	chainForward     = "services-forward"
	chainServices    = "to-services"
	chainNodePorts   = "to-nodeports"
	chainUnserved    = "unserved"
	chainReject      = "rejected"
)

// Before other source NAT: the first to act wins.
const priorityMasquerade = nft.PrioritySrcNAT - 1

// Base plans what a node has besides its services: the hooks and the maps they look up. All that is asked about services is asked in
// hooks of type nat, which see the first packet of a connection only; the others pay nothing. They may reject and drop as well.
func (p Planner) Base(n proxy.Node) nft.Table {
	t := nft.New()
	for _, f := range families {
		t.Sets = append(t.Sets, f.vips(), f.ports(), f.nodePortSet(), f.hairpin(), f.clusterIPs(),
			f.addresses("rejected"), f.addresses("dropped"), f.portsOnly("rejected"), f.portsOnly("dropped"))
	}
	in := []nft.Rule{
		rule(nft.Match{Field: nft.NFProto, Num: nft.ProtoIPv4}, nft.Verdict{Kind: nft.Goto, Chain: families[0].name(chainServices)}),
		rule(nft.Verdict{Kind: nft.Goto, Chain: families[1].name(chainServices)}),
	}
	out := append(p.fromNode(), in...)
	t.Chains = []nft.Chain{
		base(chainPrerouting, nft.NAT, nft.Prerouting, nft.PriorityDstNAT, in...),
		base(chainOutput, nft.NAT, nft.Output, nft.PriorityDstNAT, out...),
		base(chainPostrouting, nft.NAT, nft.Postrouting, priorityMasquerade, p.masquerade()...),
		rejectChain(),
	}
	for _, f := range families {
		t.Chains = append(t.Chains, f.services(n), f.nodePortChain(), list{family: f}.unservedChain(), list{family: f, port: true}.unservedChain())
	}
	if !p.Liberal {
		// After a lost RST or FIN, late packets of a connection would pass without translation back.
		invalid := rule(nft.Match{Field: nft.CtState, Num: nft.CtInvalid}, nft.Verdict{Kind: nft.Drop})
		t.Chains = append(t.Chains, base(chainForward, nft.Filter, nft.Forward, nft.PriorityFilter, invalid))
	}
	return t
}

func base(name string, typ nft.ChainType, hook nft.Hook, priority int, rules ...nft.Rule) nft.Chain {
	return nft.Chain{Name: name, Base: nft.Base{Type: typ, Hook: hook, Priority: priority}, Rules: rules}
}

func rule(s ...nft.Statement) nft.Rule { return nft.Rule{Statements: s} }

// rejectChain answers so that a client gives up at once: with RST where the protocol has it.
func rejectChain() nft.Chain {
	return nft.Chain{Name: chainReject, Rules: []nft.Rule{
		rule(nft.Match{Field: nft.L4Proto, Num: nft.TCP}, nft.Reject{With: nft.TCPReset}),
		rule(nft.Reject{With: nft.PortUnreachable}),
	}}
}

// services looks services up, by address and then by NodePort: packets that were sent to an endpoint do not get past the lookup. What it costs
// is paid by the first packet of every connection, most of which are to no service.
func (f family) services(n proxy.Node) nft.Chain {
	rules := append([]nft.Rule{rule(nft.VMap{Key: f.vipKey(), Map: f.name("vips")})}, f.nodePorts(n)...)
	// A port that the service does not have.
	rules = append(rules, rule(nft.Lookup{Key: exprs(f.daddr), Set: f.name("cluster-ips")}, nft.Verdict{Kind: nft.Goto, Chain: chainReject}))
	return nft.Chain{Name: f.name(chainServices), Rules: rules}
}

// nodePortChain does for NodePorts what services does for addresses.
func (f family) nodePortChain() nft.Chain {
	return nft.Chain{Name: f.name(chainNodePorts), Rules: []nft.Rule{rule(nft.VMap{Key: portKey(), Map: f.name("ports")})}}
}

// unserved is the chain of what a service's chain found no endpoint for.
func (l list) unserved() string {
	if l.port {
		return l.name(chainUnserved + "-ports")
	}
	return l.name(chainUnserved)
}

// unservedChain answers what nobody serves.
func (l list) unservedChain() nft.Chain {
	key, ports := l.vipKey(), ""
	if l.port {
		key, ports = portKey(), "-ports"
	}
	return nft.Chain{Name: l.unserved(), Rules: []nft.Rule{
		rule(nft.Lookup{Key: key, Set: l.name("dropped" + ports)}, nft.Verdict{Kind: nft.Drop}),
		rule(nft.Lookup{Key: key, Set: l.name("rejected" + ports)}, nft.Verdict{Kind: nft.Goto, Chain: chainReject}),
	}}
}

// fromNode marks connections of the node itself to cluster addresses: the node's address was chosen for the way to the service, not
// to the endpoint, and is none that the overlay carries.
func (p Planner) fromNode() []nft.Rule {
	var rules []nft.Rule
	for _, f := range families {
		rules = append(rules, rule(
			nft.Lookup{Key: exprs(f.daddr), Set: f.name("cluster-ips")}, nft.SetMark{Mask: p.mark(), Value: p.mark()}))
	}
	return rules
}

// nodePorts lead packets to a NodePort's addresses to the chain of NodePorts. Whether the port is one is asked first: it costs a lookup in a
// set, not one in the routing tables.
func (f family) nodePorts(n proxy.Node) []nft.Rule {
	isNodePort := nft.Lookup{Key: portKey(), Set: f.nodePortSet().Name}
	local := nft.Match{Field: nft.FibDaddrType, Num: nft.TypeLocal}
	jump := nft.Verdict{Kind: nft.Jump, Chain: f.name(chainNodePorts)}
	networks, all := n.NodePortNetworks(f.v6)
	if all {
		return []nft.Rule{rule(isNodePort, nft.Match{Field: f.daddr, Not: true, Prefix: proxy.Loopback(f.v6)}, local, jump)}
	}
	var rules []nft.Rule
	for _, a := range networks {
		rules = append(rules, rule(isNodePort, nft.Match{Field: f.daddr, Prefix: a}, local, jump))
	}
	return rules
}

// masquerade gives the node's address to connections whose answers would not come back this way otherwise: those that were
// marked for it, and those of a pod to itself.
func (p Planner) masquerade() []nft.Rule {
	masquerade := nft.Masquerade{FullyRandom: !p.KeepPorts}
	rules := []nft.Rule{rule(
		nft.Match{Field: nft.MetaMark, Mask: p.mark(), Num: p.mark()}, nft.SetMark{Value: p.mark()}, masquerade)}
	for _, f := range families {
		rules = append(rules, rule(
			nft.Match{Field: nft.CtStatus, Num: nft.CtDNAT}, nft.Lookup{Key: exprs(f.saddr, f.daddr), Set: f.name("hairpin")}, masquerade))
	}
	return rules
}

// clusterCIDRs are the pod networks of the family.
func (f family) clusterCIDRs(n proxy.Node) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range n.ClusterCIDRs {
		if c.Addr().Is6() == f.v6 {
			out = append(out, c.Masked())
		}
	}
	return out
}
