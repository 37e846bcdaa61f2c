// Package proxy holds the words that the planners of all proxy modes share: the node they plan for, and which endpoints of a
// service a packet may go to. The modes are its subdirectories.
//
// Floor 2, planners: pure.
package proxy

import (
	"net/netip"
	"slices"

	"weft/internal/api"
)

// Node is the node that services are planned for.
type Node struct {
	Name string
	Zone string
	// Addresses are the node's, the preferred one of each family first.
	Addresses []netip.Addr
	// ClusterCIDRs are the pod networks: packets from there are from inside the cluster.
	ClusterCIDRs []netip.Prefix
	// NodePortAddresses are the networks whose local addresses accept NodePorts; empty: all local addresses.
	NodePortAddresses []netip.Prefix
	// LocalhostNodePorts serves NodePorts on 127.0.0.1 and ::1 too.
	LocalhostNodePorts bool
	// OpenNodePorts lets everybody reach the NodePorts of services with source ranges, as kube-proxy does.
	OpenNodePorts bool
	// NoSCTP says that the kernel can't translate SCTP: services of that protocol are refused.
	NoSCTP bool
	// NoHash says that the kernel's nf_tables can't hash: mode nftables draws endpoints at random where a service asks for consistent hashing.
	NoHash bool
}

// Address is the node's preferred address of the family, or the zero Addr.
func (n Node) Address(v6 bool) netip.Addr {
	for _, a := range n.Addresses {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// Backend is one proxy mode: it plans service by service, and a full plan is the union, so a changed endpoint costs one service. P
// is what the mode plans: rules, map elements, listeners.
type Backend[P any] interface {
	Plan(n Node, s api.ServicePort) P
}

// Scope says which endpoints a packet may go to.
type Scope uint8

// The scopes.
const (
	Cluster Scope = iota // all endpoints
	Local                // endpoints on the packet's node (a traffic policy Local)
)

// Internal is the scope of packets to the service's cluster addresses (internalTrafficPolicy).
func Internal(s api.ServicePort) Scope { return scope(s.InternalLocal) }

// External is the scope of packets from outside the cluster to the service's NodePort, external and load balancer addresses
// (externalTrafficPolicy). Packets from inside the cluster to these have the scope Cluster.
func External(s api.ServicePort) Scope { return scope(s.ExternalLocal) }

func scope(local bool) Scope {
	if local {
		return Local
	}
	return Cluster
}

// Exposed reports whether the service has addresses for packets from outside the cluster.
func Exposed(s api.ServicePort) bool {
	return s.NodePort != 0 || len(s.External) > 0 || len(s.LoadBalancer) > 0
}

// Endpoints returns the endpoints of one family in the scope that may get new connections: the ready ones, else those that are
// terminating and still serve (KEP-1669). Of the cluster's endpoints they are those near the node, where hints say which (see near).
func Endpoints(n Node, s api.ServicePort, v6 bool, in Scope) []netip.AddrPort {
	if n.NoSCTP && s.Protocol == api.SCTP {
		return nil
	}
	if in == Local {
		s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(e api.Endpoint) bool { return e.Node != n.Name })
		return s.Ready(v6)
	}
	usable := s.Usable(v6)
	if len(usable) > 0 && usable[0].Ready {
		usable = near(n, usable)
	}
	return api.Addrs(usable)
}

// near returns the endpoints that the hints of the EndpointSlices give to the node: by node (trafficDistribution PreferSameNode), else by
// zone (PreferSameZone, PreferClose, topology aware routing). Hints count when every endpoint has some and one names the node or its
// zone; else all endpoints are returned, since an incomplete hint would leave clients without any (KEP-2433, KEP-3015).
func near(n Node, ready []api.Endpoint) []api.Endpoint {
	if e := hinted(ready, n.Name, func(e api.Endpoint) api.Names { return e.NodeHints }); e != nil {
		return e
	}
	if e := hinted(ready, n.Zone, func(e api.Endpoint) api.Names { return e.ZoneHints }); e != nil {
		return e
	}
	return ready
}

// hinted returns the endpoints whose hints have the name, nil where hints do not count.
func hinted(ready []api.Endpoint, name string, hints func(api.Endpoint) api.Names) []api.Endpoint {
	var out []api.Endpoint
	for _, e := range ready {
		switch h := hints(e); {
		case h == "":
			return nil
		case h.Has(name):
			out = append(out, e)
		}
	}
	return out
}
