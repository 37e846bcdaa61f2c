package userspace

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/xt"
)

// What follows the service's name in the comments of refusing rules.
const (
	noEndpoints = " has no endpoints"
	noLocal     = " has no local endpoints"
	notInRange  = " is not for this source"
	otherMode   = " needs another proxy mode than userspace"
)

// exposed plans one address that packets from outside the cluster use, for each of the sources; r has everything but source,
// target and remark. Packets from pods and from the node itself may go to all endpoints, those from elsewhere to the external scope's.
func (p *planner) exposed(container, host string, sources []xt.Address, r xt.Rule) {
	add := func(chain string, src xt.Address, t xt.Target) {
		r := r
		r.Src, r.Target = src, t
		p.t.Add("nat", chain, r)
	}
	out := proxy.External(p.svc)
	if out == proxy.Local && p.port[proxy.Cluster] != 0 {
		for _, inside := range p.inside(sources) {
			add(container, inside, p.container(proxy.Cluster))
		}
	}
	for _, src := range sources {
		if p.port[proxy.Cluster] != 0 {
			add(host, src, p.host(proxy.Cluster))
		}
		switch r.Src = src; {
		case p.port[out] != 0:
			add(container, src, p.container(out))
		case p.port[proxy.Cluster] != 0:
			p.refuse(p.remark(r, noLocal, xt.Drop))
		default:
			p.refuse(p.remark(r, p.nobody(), p.reject()))
		}
	}
}

// fromNode lets the node itself use an address that others reach from the source ranges only.
func (p *planner) fromNode(host string, r xt.Rule) {
	if p.port[proxy.Cluster] != 0 {
		r.Target = p.host(proxy.Cluster)
		p.t.Add("nat", host, r)
		return
	}
	r.Match = append([]xt.Match{r.Match[0], xt.AddrType{Src: "LOCAL"}}, r.Match[1:]...)
	p.refuse(p.remark(r, p.nobody(), p.reject()))
}

// unserved drops packets to a service whose endpoints are all on other nodes, as they may come back, and rejects those to one without any.
func (p *planner) unserved(r xt.Rule) {
	if Unsupported(p.svc) == "" && len(proxy.Endpoints(p.node, p.svc, p.v6, proxy.Cluster)) > 0 {
		p.refuse(p.remark(r, noLocal, xt.Drop))
		return
	}
	p.refuse(p.remark(r, p.nobody(), p.reject()))
}

// inside returns what the sources and the pod networks have in common.
func (p *planner) inside(sources []xt.Address) []xt.Address {
	var out []xt.Address
	for _, pods := range p.node.ClusterCIDRs {
		if pods.Addr().Is6() != p.v6 {
			continue
		}
		for _, src := range sources {
			if a, ok := narrow(src, pods); ok && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
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

// nobody says why the service port has nobody to send packets to.
func (p *planner) nobody() string {
	if Unsupported(p.svc) != "" {
		return otherMode
	}
	return noEndpoints
}

// reject answers TCP with a reset, not with the port unreachable of the other protocols: the kernel limits ICMP errors to a few a second
// for each receiver, and a client that gets none waits for its next SYN.
func (p *planner) reject() xt.Target {
	switch {
	case p.svc.Protocol == api.TCP:
		return xt.Reject{With: "tcp-reset"}
	case p.v6:
		return xt.Reject{With: "icmp6-port-unreachable"}
	}
	return xt.Reject{With: "icmp-port-unreachable"}
}

// refuse adds a rule to the filter chain that sees new connections which no nat rule took, wherever they are going. A rule for more
// than one address is a NodePort's and counts for the node's own addresses.
func (p *planner) refuse(r xt.Rule) {
	if !r.Dst.Prefix.IsSingleIP() || r.Dst.Not {
		r.Match = append([]xt.Match{xt.AddrType{Dst: "LOCAL"}}, r.Match...)
	}
	for _, chain := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		if p.t.Chain("filter", chain) == nil {
			p.t.Add("filter", chain, jump(servicesComment, leftOver, xt.Conntrack{States: "NEW"}))
		}
	}
	p.t.Add("filter", leftOver, r)
}
