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
}
