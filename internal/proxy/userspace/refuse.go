package userspace

import (
	"net/netip"

	"weft/internal/proxy"
	"weft/internal/xt"
)

// What follows the service's name in the comments of refusing rules.
const (
	noEndpoints = " has no endpoints"
	noLocal     = " has no local endpoints"
	notInRange  = " is not for this source"
)

// exposed plans one address that packets from outside the cluster use; r has everything but source, target and remark.
// Packets from pods and from the node itself may go to all endpoints, those from elsewhere to the external scope's.
func (p *planner) exposed(container, host string, src xt.Address, r xt.Rule) {
	r.Src = src
	with := func(t xt.Target) xt.Rule { r := r; r.Target = t; return r }
	out := proxy.External(p.svc)
	if p.port[proxy.Cluster] == 0 {
		p.refuse(p.remark(r, noEndpoints, p.reject()))
		return
	}
	p.t.Add("nat", host, with(p.host(proxy.Cluster)))
	if out == proxy.Cluster {
		p.t.Add("nat", container, with(p.container(proxy.Cluster)))
		return
	}
	for _, pods := range p.node.ClusterCIDRs {
		if pods.Addr().Is6() != p.v6 {
			continue
		}
		if inside, ok := narrow(src, pods); ok {
			in := with(p.container(proxy.Cluster))
			in.Src = inside
			p.t.Add("nat", container, in)
		}
	}
	if p.port[proxy.Local] == 0 {
		p.refuse(p.remark(r, noLocal, xt.Drop))
		return
	}
	p.t.Add("nat", container, with(p.container(proxy.Local)))
}

// narrow returns what a source and a network have in common; the zero Address is everything.
func narrow(src xt.Address, pods netip.Prefix) (xt.Address, bool) {
	switch {
	case !src.Prefix.IsValid() || pods.Overlaps(src.Prefix) && pods.Bits() >= src.Prefix.Bits():
		return xt.Net(pods), true
	case pods.Overlaps(src.Prefix):
		return src, true
	}
	return xt.Address{}, false
}

// remark returns r with a target and a remark after the service's name.
func (p *planner) remark(r xt.Rule, comment string, t xt.Target) xt.Rule {
	r.Match = append([]xt.Match{xt.Comment(p.svc.Name.String() + comment)}, r.Match[1:]...)
	r.Target = t
	return r
}

func (p *planner) reject() xt.Target {
	if p.v6 {
		return xt.Reject{With: "icmp6-port-unreachable"}
	}
	return xt.Reject{With: "icmp-port-unreachable"}
}

// refuse adds a rule to the filter chain that sees new connections which no nat rule took, wherever they are going. A rule without
// destination is a NodePort's and counts for the node's own addresses.
func (p *planner) refuse(r xt.Rule) {
	if !r.Dst.Prefix.IsValid() {
		r.Match = append([]xt.Match{xt.AddrType{Dst: "LOCAL"}}, r.Match...)
	}
	for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		if p.t.Chain("filter", chain) == nil {
			p.t.Add("filter", chain, jump(servicesComment, leftOver, xt.Conntrack{States: "NEW"}))
		}
	}
	p.t.Add("filter", leftOver, r)
}
