package userspace

import (
	"net/netip"
	"strings"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/xt"
)

// The chains. Those of table nat are kube-proxy's of the time when it had this mode.
const (
	portalsContainer  = "KUBE-PORTALS-CONTAINER"
	portalsHost       = "KUBE-PORTALS-HOST"
	nodePortContainer = "KUBE-NODEPORT-CONTAINER"
	nodePortHost      = "KUBE-NODEPORT-HOST"
	leftOver          = "WEFT-SERVICES" // table filter: what no nat rule took
)

// Comments of the jumps.
const (
	portalsComment  = "handle ClusterIPs; NOTE: this must be before the NodePort rules"
	nodePortComment = "handle service NodePorts; NOTE: this must be the last rule in the chain"
	servicesComment = "services without endpoints"
)

// Base plans what every node has, in each family it has an address of: the chains of the cluster addresses and the jumps to them.
func Base(n proxy.Node) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		if !n.Address(v6).IsValid() {
			continue
		}
		t := r.Family(v6)
		t.Add("nat", portalsContainer)
		t.Add("nat", portalsHost)
		t.Add("nat", "PREROUTING", jump(portalsComment, portalsContainer))
		t.Add("nat", "OUTPUT", jump(portalsComment, portalsHost))
	}
	return r
}

func jump(comment, chain string, before ...xt.Match) xt.Rule {
	return xt.Rule{Match: append(before, xt.Comment(comment)), Target: xt.Jump{Chain: chain}}
}

// Rules plans the rules of one service port, with the jumps to the chains they need beyond Base. A service port whose listener holds
// no port is rejected as one without endpoints is.
func Rules(n proxy.Node, s api.ServicePort, ports Ports) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		if n.Address(v6).IsValid() {
			p := planner{node: n, svc: s, v6: v6, t: r.Family(v6)}
			p.port[proxy.Cluster] = p.usable(proxy.Cluster, ports)
			p.port[proxy.Local] = p.usable(proxy.Local, ports)
			p.plan()
		}
	}
	return r
}

// planner plans one service port in one family.
type planner struct {
	node proxy.Node
	svc  api.ServicePort
	v6   bool
	port [2]uint16 // of the listener of each scope, 0: nobody to send packets to
	t    *xt.Tables
}

func (p *planner) usable(in proxy.Scope, ports Ports) uint16 {
	if Unsupported(p.svc) != "" || len(proxy.Endpoints(p.node, p.svc, p.v6, in)) == 0 {
		return 0
	}
	return ports[key(p.svc, in)]
}

func (p *planner) plan() {
	for _, ip := range p.svc.ClusterIPs {
		if ip.Is6() == p.v6 {
			p.clusterIP(xt.IP(ip))
		}
	}
	for _, ip := range p.svc.External {
		if ip.Is6() == p.v6 {
			p.external(xt.IP(ip), nil)
		}
	}
	for _, prefix := range p.svc.LoadBalancer {
		if prefix.Addr().Is6() == p.v6 {
			p.external(xt.Net(prefix), p.svc.SourceRanges)
		}
	}
	if p.svc.NodePort != 0 && proxy.HasFamily(p.svc, p.v6) {
		p.nodePort()
	}
}

// rule is the rule all others are made from.
func (p *planner) rule(dst xt.Address, port uint16, comment string, target xt.Target) xt.Rule {
	proto := strings.ToLower(string(p.svc.Protocol))
	return xt.Rule{
		Dst:    dst,
		Proto:  xt.Proto{Name: proto},
		Match:  []xt.Match{xt.Comment(p.svc.Name.String() + comment), xt.DPort(proto, port)},
		Target: target,
	}
}

// container is the target of packets that arrive at the node, host of those its own processes send.
func (p *planner) container(in proxy.Scope) xt.Target { return xt.Redirect{Port: p.port[in]} }

func (p *planner) host(in proxy.Scope) xt.Target {
	return xt.DNAT{To: netip.AddrPortFrom(p.node.Address(p.v6), p.port[in])}
}

func (p *planner) clusterIP(dst xt.Address) {
	in := proxy.Internal(p.svc)
	if p.port[in] == 0 {
		p.unserved(p.rule(dst, p.svc.Port, "", nil))
		return
	}
	p.t.Add("nat", portalsContainer, p.rule(dst, p.svc.Port, "", p.container(in)))
	p.t.Add("nat", portalsHost, p.rule(dst, p.svc.Port, "", p.host(in)))
}

// external plans an external or load balancer address. With source ranges only packets from there are accepted, others dropped.
func (p *planner) external(dst xt.Address, ranges []netip.Prefix) {
	sources := []xt.Address{{}}
	if len(ranges) > 0 {
		// The address itself may come too: a node that sends to it takes it as its source.
		sources = append(p.sources(ranges), dst)
	}
	p.exposed(portalsContainer, portalsHost, sources, p.rule(dst, p.svc.Port, "", nil))
	if len(ranges) > 0 {
		p.refuse(p.rule(dst, p.svc.Port, notInRange, xt.Drop))
	}
}

// sources are the networks of the family.
func (p *planner) sources(ranges []netip.Prefix) []xt.Address {
	var out []xt.Address
	for _, r := range ranges {
		if r.Addr().Is6() == p.v6 {
			out = append(out, xt.Net(r))
		}
	}
	return out
}

// nodePort plans the NodePort for each of the addresses that accept it, the loopback one among them.
func (p *planner) nodePort() {
	var addresses []xt.Address
	networks, all := p.node.NodePortNetworks(p.v6)
	for _, a := range networks {
		addresses = append(addresses, xt.Net(a))
	}
	localhost := proxy.OnLocalhost(p.node, p.svc, p.v6)
	switch {
	case all && localhost:
		addresses = append(addresses, xt.Address{})
	case all:
		addresses = append(addresses, xt.NotNet(proxy.Loopback(p.v6)))
	case localhost:
		addresses = append(addresses, xt.IP(proxy.LocalhostAddr(p.v6)))
	}
	if len(addresses) == 0 {
		return
	}
	sources := []xt.Address{{}}
	ranges, limited := proxy.NodePortSources(p.node, p.svc)
	if limited {
		sources = p.sources(ranges)
	}
	for _, dst := range addresses {
		r := p.rule(dst, p.svc.NodePort, "", nil)
		p.exposed(nodePortContainer, nodePortHost, sources, r)
		if limited {
			p.fromNode(nodePortHost, r)
			p.refuse(p.remark(r, notInRange, xt.Drop))
		}
	}
	for _, hook := range [][2]string{{"PREROUTING", nodePortContainer}, {"OUTPUT", nodePortHost}} {
		if p.t.Chain("nat", hook[1]) == nil {
			continue
		}
		j := jump(nodePortComment, hook[1], xt.AddrType{Dst: "LOCAL"})
		j.Last = true
		p.t.Add("nat", hook[0], j)
	}
}
