// Package agenttest holds what the tests of several packages of the agent start from: the cluster of the walkthrough.
//
// Floor 4, programs.
package agenttest

import (
	"net/netip"

	"weft/internal/agent/facts"
	"weft/internal/api"
)

// Walkthrough is the node kube-node1 of the walkthrough, as its agent would publish it.
func Walkthrough(mode facts.ProxyMode) facts.Facts {
	return facts.Facts{
		Node: "kube-node1", Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{netip.MustParseAddr("172.17.42.31")},
		Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}, Gateway: netip.MustParseAddr("172.17.42.1"),
		Attach: "bridge", Bridge: "docker0", ProxyMode: mode, IPMasq: true, Network: netip.MustParsePrefix("172.16.0.0/12"),
		Backend: "vxlan", EdgeCheck: true, ServiceRange: netip.MustParsePrefix("10.254.0.0/16"),
	}
}

// Nginx is the service of the walkthrough with the endpoints, each "address:port".
func Nginx(endpoints ...string) api.ServicePort {
	s := api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "my-nginx-service"}, Protocol: api.TCP,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.247.121")}, Port: 8080,
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: netip.MustParseAddrPort(e), Ready: true, Serving: true})
	}
	return s
}

// Lease is a lease of an IPv4 subnet under a backend, as its node announces it.
func Lease(node, subnet, public, backend string, vni uint32, mac string) api.Lease {
	return api.Lease{
		Node: node, Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(public), BackendType: backend, VNI: vni, VTEPMAC: mac,
	}
}
