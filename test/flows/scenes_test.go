package flows_test

import (
	"net/netip"

	"weft/internal/api"
	"weft/internal/proxy"
)

// scene is a service and the flows to it. A row is the client, where it sends to, and all fates there may be: "HOST<SOURCE" is an answer of
// HOST, which saw SOURCE (nameOf); "refused"; "timeout". "MODE=FATE" is the fate in one mode, where the modes differ. In mode userspace
// endpoints see the node, unless a row says something else. After a slash the destination says what the row is for only: tcp, udp, v4, v6.
type scene struct {
	name      string
	endpoints string // host, with "!" not ready, with "~" terminating and serving; after a slash what the endpoint is for only, as in rows
	service   func(*api.ServicePort)
	node      func(*proxy.Node)
	more      func(*plan)
	all       bool // masquerade all
	sticky    bool // a client keeps one of the fates
	rows      string
}

func externalLocal(s *api.ServicePort) { s.ExternalLocal = true }
func internalLocal(s *api.ServicePort) { s.InternalLocal = true }

// onlyB lets only pod b use the load balancer addresses.
func onlyB(s *api.ServicePort) { s.SourceRanges = networks("b") }

func networks(hosts ...string) (out []netip.Prefix) {
	for _, h := range hosts {
		out = append(out, netip.PrefixFrom(addrOn(h, false, false), 24).Masked(), netip.PrefixFrom(addrOn(h, false, true), 64).Masked())
	}
	return out
}

var table = []scene{
	{name: "policy Cluster", endpoints: "a b", rows: `
		a        vip           b<a a<node
		b        vip           a<b b<node
		away     vip           a<away b<away
		node     vip           a<node b<node
		outside  vip           a<node b<node
		a        ext           a<node b<node
		node     ext           a<node b<node
		outside  ext           a<node b<node
		a        lb            a<node b<node
		outside  lb            a<node b<node
		a        port@a        a<node b<node
		away     port@away     a<node b<node
		node     port@outside  a<node b<node
		outside  port@outside  a<node b<node
		outside  port@a        a<node b<node
		node     port@lo       a<node b<node
		outside  a:80          a<outside
		a        vip:8081      nftables=refused iptables=timeout userspace=timeout
	`},
	{name: "endpoint on another node", endpoints: "away", rows: `
		a        vip           away<a
		node     vip           away<node
		outside  vip           away<node
		outside  port@outside  away<node
		outside  ext           away<node
		outside  lb            away<node
		a        port@outside  away<node
	`},
	{name: "no endpoints", rows: `
		a        vip           refused
		away     vip           refused
		node     vip           refused
		outside  vip           refused
		a        ext           refused
		node     ext           refused
		outside  ext           refused
		outside  lb            refused
		a        port@a        refused
		node     port@outside  refused
		outside  port@outside  refused
		node     port@lo       refused
	`},
	{name: "none ready", endpoints: "a! away!", rows: `
		b        vip           refused
		outside  port@outside  refused
	`},
	{name: "terminating", endpoints: "a~ b!", rows: `
		b        vip           a<b
		node     vip           a<node
		outside  port@outside  a<node
	`},
	{name: "one terminating, one ready", endpoints: "a~ b", rows: `
		away     vip           b<away
		outside  ext           b<node
	`},
	{name: "external policy Local", endpoints: "a away", service: externalLocal, rows: `
		b        vip           a<b away<b
		b        ext           a<b away<b
		a        ext           a<node away<a
		node     ext           a<node away<node
		outside  ext           a<outside
		outside  lb            a<outside
		outside  port@outside  a<outside
		b        port@outside  a<b away<b
		node     port@outside  a<node away<node
		outside  vip           a<node away<node
	`},
	{name: "external policy Local, none here", endpoints: "away", service: externalLocal, rows: `
		b        ext           away<b
		node     ext           away<node
		outside  ext           timeout
		b        port@b        away<b
		outside  vip           away<node
	`},
	// The drop is an element of a verdict map, which explain.NFTables takes for a jump.
	{name: "external policy Local, none here, address of the node", endpoints: "away", service: externalLocal, rows: `
		outside  port@outside  timeout
		outside  port@a        timeout
		outside  lb            timeout
	`},
	{name: "external policy Local, none at all", service: externalLocal, rows: `
		outside  ext           refused
		outside  port@outside  refused
		b        ext           refused
	`},
	{name: "external policy Local, terminating here", endpoints: "a~ away", service: externalLocal, rows: `
		outside  ext           a<outside
		b        ext           away<b
	`},
	{name: "internal policy Local", endpoints: "b away", service: internalLocal, rows: `
		a        vip           b<a
		node     vip           b<node
		outside  vip           b<node
		outside  ext           b<node away<node
		a        port@a        b<node away<node
	`},
	{name: "internal policy Local, none here", endpoints: "away", service: internalLocal, rows: `
		a        vip           timeout
		node     vip           timeout
		outside  ext           away<node
	`},
	{name: "both policies Local", endpoints: "b away", service: func(s *api.ServicePort) { internalLocal(s); externalLocal(s) }, rows: `
		a        vip           b<a
		outside  port@outside  b<outside
		a        ext           b<a away<a
	`},
	{name: "source ranges", endpoints: "a", service: onlyB, rows: `
		b        lb            a<node
		away     lb            timeout
		node     lb            a<node
		outside  lb            timeout
		outside  ext           a<node
		away     vip           a<away
		outside  port@outside  timeout
		away     port@away     timeout
		b        port@b        a<node
		b        port@outside  a<node
		node     port@outside  a<node
		node     port@lo       a<node
	`},
	{name: "source ranges, no endpoints", service: onlyB, rows: `
		b        lb            refused
		outside  lb            timeout
		outside  ext           refused
		b        port@b        refused
		outside  port@outside  timeout
		node     port@outside  refused
		node     port@lo       refused
	`},
	{name: "source ranges, external policy Local", endpoints: "a away", service: func(s *api.ServicePort) {
		s.ExternalLocal, s.SourceRanges = true, networks("outside", "b")
	}, rows: `
		outside  lb            a<outside
		b        lb            a<b away<b
		away     lb            timeout
		outside  port@outside  a<outside
		b        port@b        a<b away<b
		away     port@away     timeout
	`},
	{name: "NodePorts on some addresses", endpoints: "b", node: func(n *proxy.Node) { n.NodePortAddresses = networks("outside") }, rows: `
		outside  port@outside  b<node
		a        port@a        node<a
		a        port@outside  b<node
		node     port@a        node<node
		node     port@outside  b<node
		node     port@lo       refused
	`},
	{name: "masquerade all", endpoints: "a b", all: true, rows: `
		a        vip           a<node b<node
		away     vip           a<node b<node
	`},
	{name: "pod networks unknown", endpoints: "a b", node: func(n *proxy.Node) { n.ClusterCIDRs = nil }, rows: `
		away     vip           a<away b<away
		outside  vip           a<outside b<outside
		node     vip           a<node b<node
		a        vip           a<node b<a
	`},
	{name: "several pod networks", endpoints: "a away", node: func(n *proxy.Node) { n.ClusterCIDRs = networks("a", "b", "away") }, service: externalLocal, rows: `
		b        vip           a<b away<b
		outside  vip           a<node away<node
		b        ext           a<b away<b
		outside  ext           a<outside
	`},
	{name: "session affinity", endpoints: "a b away", service: func(s *api.ServicePort) { s.AffinitySeconds = 600 }, sticky: true, rows: `
		outside  vip           a<node b<node away<node
		outside  port@outside  a<node b<node away<node
		node     vip           a<node b<node away<node
	`},
	{name: "session affinity, external policy Local", endpoints: "a b away", service: func(s *api.ServicePort) {
		s.AffinitySeconds, s.ExternalLocal = 600, true
	}, sticky: true, rows: `
		outside  ext           a<outside b<outside
		node     ext           a<node b<node away<node
	`},
	{name: "hairpin", endpoints: "a", rows: `
		a        vip           a<node
		a        ext           a<node
		a        lb            a<node
		a        port@a        a<node
		a        port@outside  a<node
		b        vip           a<b
	`},
	{name: "hairpin, both policies Local", endpoints: "a", service: func(s *api.ServicePort) { internalLocal(s); externalLocal(s) }, rows: `
		a        vip           a<node
		a        ext           a<node
		a        lb            a<node
		a        port@a        a<node
		b        ext           a<b
		outside  ext           a<outside
	`},
	{name: "hairpin, session affinity", endpoints: "a", service: func(s *api.ServicePort) { s.AffinitySeconds = 600 }, sticky: true, rows: `
		a        vip           a<node
		a        port@outside  a<node
	`},
	{name: "one port, two protocols", endpoints: "a/tcp b/udp", rows: `
		away     vip/tcp           a<away
		away     vip/udp           b<away
		node     vip/tcp           a<node
		node     vip/udp           b<node
		outside  ext/udp           b<node
		outside  lb/tcp            a<node
		outside  port@outside/tcp  a<node
		outside  port@outside/udp  b<node
		node     port@lo/tcp       a<node
		node     port@lo/udp       b<node
	`},
	{name: "TCP only", endpoints: "a", more: func(p *plan) { p.services = p.services[:1] }, rows: `
		b        vip/tcp           a<b
		b        vip/udp           nftables=refused iptables=timeout userspace=timeout
		outside  port@outside/udp  node<outside
		node     port@lo/udp       refused
	`},
	{name: "several ports", endpoints: "a", more: func(p *plan) {
		other := p.services[0]
		other.Name.Port, other.Port, other.NodePort = "other", port+1, 0
		other.Endpoints = append(other.Endpoints[:0:0], other.Endpoints...)
		for i := range other.Endpoints {
			v6 := other.Endpoints[i].Addr.Addr().Is6()
			other.Endpoints[i].Addr = netip.AddrPortFrom(addrOn("b", false, v6), podPort)
		}
		p.services = append(p.services, other)
	}, rows: `
		away     vip               a<away
		away     vip:8081/tcp      b<away
		node     vip:8081/tcp      b<node
	`},
	{name: "endpoints of one family", endpoints: "a/v4", rows: `
		b        vip/v4            a<b
		b        vip/v6            refused
		outside  ext/v6            refused
		outside  port@outside/v4   a<node
		outside  port@outside/v6   refused
		node     port@lo/v4        a<node
		node     port@lo/v6        refused
	`},
	{name: "IPv6 only", endpoints: "a/v6", service: func(s *api.ServicePort) {
		s.ClusterIPs, s.External, s.LoadBalancer = s.ClusterIPs[1:], s.External[1:], s.LoadBalancer[1:]
	}, rows: `
		b        vip/v6            a<b
		node     vip/v6            a<node
		outside  lb/v6             a<node
		outside  port@outside/v6   a<node
		outside  port@outside/v4   node<outside
		node     port@lo/v6        a<node
		node     port@lo/v4        refused
	`},
	{name: "NodePorts on addresses of one family", endpoints: "b", node: func(n *proxy.Node) { n.NodePortAddresses = networks("outside")[:1] }, rows: `
		outside  port@outside      b<node
		a        port@a/v4         node<a
		a        port@a/v6         b<node
		node     port@lo/v4        refused
		node     port@lo/v6        b<node
	`},
	{name: "NodePorts on loopback and some addresses", endpoints: "b", node: func(n *proxy.Node) {
		n.NodePortAddresses = append(networks("outside"), proxy.Loopback(false), proxy.Loopback(true))
	}, rows: `
		outside  port@outside      b<node
		a        port@a            node<a
		node     port@lo           b<node
	`},
	{name: "NodePorts on loopback only", endpoints: "b", node: func(n *proxy.Node) {
		n.NodePortAddresses = []netip.Prefix{proxy.Loopback(false), proxy.Loopback(true)}
	}, rows: `
		outside  port@outside      node<outside
		node     port@lo           b<node
	`},
	{name: "NodePorts on all networks", endpoints: "b", node: func(n *proxy.Node) {
		n.NodePortAddresses = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}, rows: `
		outside  port@a            b<node
		node     port@lo           b<node
	`},
	{name: "NodePorts on some addresses, no endpoints", node: func(n *proxy.Node) { n.NodePortAddresses = networks("outside") }, rows: `
		outside  port@outside      refused
		a        port@a            node<a
	`},
	{name: "no NodePorts on loopback", endpoints: "b", node: func(n *proxy.Node) { n.LocalhostNodePorts = false }, rows: `
		node     port@lo           refused
		node     port@outside      b<node
		outside  port@outside      b<node
	`},
	{name: "NodePort on loopback, external policy Local, none here", endpoints: "away", service: externalLocal, rows: `
		node     port@lo           away<node
	`},
	{name: "source ranges not for NodePorts", endpoints: "a", service: onlyB, node: func(n *proxy.Node) { n.OpenNodePorts = true }, rows: `
		outside  port@outside      a<node
		outside  lb                timeout
		b        lb                a<node
	`},
	{name: "source ranges, the balancer proxies", endpoints: "a", service: func(s *api.ServicePort) { onlyB(s); s.BalancerProxies = true }, rows: `
		outside  port@outside      a<node
		node     port@lo           a<node
	`},
	{name: "source ranges, external policy Local, none here", endpoints: "away", service: func(s *api.ServicePort) {
		s.ExternalLocal, s.SourceRanges = true, networks("outside")
	}, rows: `
		outside  port@outside      timeout
		b        port@b            timeout
		node     port@outside      away<node
	`},
	{name: "no NodePort (allocateLoadBalancerNodePorts false)", endpoints: "a", service: func(s *api.ServicePort) { s.NodePort = 0 }, rows: `
		outside  lb                a<node
		outside  port@outside      node<outside
		node     port@lo           refused
	`},
	{name: "load balancer of ipMode Proxy", endpoints: "a", service: func(s *api.ServicePort) { s.LoadBalancer, s.BalancerProxies = nil, true }, rows: `
		outside  lb                node<outside
		outside  port@outside      a<node
	`},
	{name: "two services, one external address", endpoints: "a", more: func(p *plan) {
		for _, s := range p.services {
			s.Name.Name, s.NodePort, s.LoadBalancer = "z", 0, nil
			s.ClusterIPs = []netip.Addr{netip.MustParseAddr("10.254.0.2"), netip.MustParseAddr("fd00:10::2")}
			s.Endpoints = append(s.Endpoints[:0:0], s.Endpoints...)
			for i := range s.Endpoints {
				s.Endpoints[i].Addr = netip.AddrPortFrom(addrOn("b", false, s.Endpoints[i].Addr.Addr().Is6()), podPort)
			}
			p.services = append(p.services, s)
		}
	}, rows: `
		away     vip               a<away
		away     vip2              b<away
		away     ext               a<node
		outside  ext               a<node
	`},
	{name: "hints: zones", endpoints: "a b away", service: func(s *api.ServicePort) {
		for i := range s.Endpoints {
			s.Endpoints[i].ZoneHints = "z1"
			if s.Endpoints[i].Node == "other" {
				s.Endpoints[i].ZoneHints = "z2"
			}
		}
	}, rows: `
		away     vip               a<away b<away
		outside  ext               a<node b<node
		node     port@lo           a<node b<node
	`},
	{name: "hints: nodes", endpoints: "a away", service: func(s *api.ServicePort) {
		for i := range s.Endpoints {
			s.Endpoints[i].ZoneHints, s.Endpoints[i].NodeHints = "z1", api.Names(s.Endpoints[i].Node)
		}
	}, rows: `
		b        vip               a<b
		outside  port@outside      a<node
	`},
	{name: "hints: one endpoint has none", endpoints: "a away", service: func(s *api.ServicePort) {
		for i := range s.Endpoints {
			if s.Endpoints[i].Node == "node" {
				s.Endpoints[i].ZoneHints = "z1"
			}
		}
	}, rows: `
		b        vip               a<b away<b
	`},
	{name: "hints: none for this zone", endpoints: "a away", service: func(s *api.ServicePort) {
		for i := range s.Endpoints {
			s.Endpoints[i].ZoneHints = "z9"
		}
	}, rows: `
		b        vip               a<b away<b
	`},
	{name: "headless", endpoints: "a", service: func(s *api.ServicePort) {
		s.ClusterIPs, s.External, s.LoadBalancer, s.NodePort = nil, nil, nil, 0
	}, rows: `
		b        vip               timeout
		outside  a:80              a<outside
		outside  port@outside      node<outside
	`},
	{name: "masquerade all, external policy Local", endpoints: "a away", service: externalLocal, all: true, rows: `
		b        vip               a<node away<node
		b        ext               a<b away<b
		outside  ext               a<outside
		node     vip               a<node away<node
	`},
	{name: "a process of the host", endpoints: "node", rows: `
		a        vip               node<a userspace=node<node
		outside  vip               node<outside userspace=node<node
		outside  port@outside      node<outside userspace=node<node
		away     port@away         node<away userspace=node<node
	`},
	{name: "terminating here, ready elsewhere, internal policy Local", endpoints: "a~ away", service: internalLocal, rows: `
		b        vip               a<b
		node     vip               a<node
	`},
	{name: "terminating, not serving", endpoints: "a! away", rows: `
		b        vip               away<b
	`},
	{name: "session affinity, internal policy Local", endpoints: "a b away", service: func(s *api.ServicePort) {
		s.AffinitySeconds, s.InternalLocal = 600, true
	}, sticky: true, rows: `
		away     vip               a<away b<away
		outside  lb                a<node b<node away<node
		node     port@lo           a<node b<node away<node
	`},
}
