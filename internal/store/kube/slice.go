package kube

import (
	"net/netip"
	"slices"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"weft/internal/api"
)

// slice is an EndpointSlice as far as a service proxy looks at it.
type slice struct {
	service string // key of the service, "" for a slice of none
	ports   []slicePort
	ends    []endpoint
}

type slicePort struct {
	name     string
	protocol api.Protocol
	port     uint16
}

// endpoint is an api.Endpoint whose port is still the slice's.
type endpoint struct {
	addr                        netip.Addr
	node, zone, pod             string
	ready, serving, terminating bool
	zoneHints, nodeHints        api.Names
}

// ServicePorts returns a service's ports with the endpoints of all its slices, as planners want them.
func ServicePorts(s *corev1.Service, parts []*discoveryv1.EndpointSlice) []api.ServicePort {
	var mine []slice
	for _, p := range parts {
		if c := convertSlice(p); c.service == keyOf(s) {
			mine = append(mine, c)
		}
	}
	return merge(convertService(s), mine)
}

// convertSlice takes a slice apart. Endpoints and ports that cannot be used are left out.
func convertSlice(e *discoveryv1.EndpointSlice) slice {
	name := e.Labels[discoveryv1.LabelServiceName]
	if name == "" || hasLabel(e.Labels, labelHeadless) ||
		e.AddressType != discoveryv1.AddressTypeIPv4 && e.AddressType != discoveryv1.AddressTypeIPv6 {
		return slice{}
	}
	out := slice{service: e.Namespace + "/" + name}
	for _, p := range e.Ports {
		sp := slicePort{protocol: protocol(deref(p.Protocol)), name: deref(p.Name), port: port(deref(p.Port))}
		if sp.port != 0 && sp.protocol != "" {
			out.ports = append(out.ports, sp)
		}
	}
	out.ends = make([]endpoint, 0, len(e.Endpoints))
	for i := range e.Endpoints {
		if end, ok := convertEndpoint(&e.Endpoints[i], e.AddressType == discoveryv1.AddressTypeIPv6); ok {
			out.ends = append(out.ends, end)
		}
	}
	return out
}

// convertEndpoint takes the first address: the others reach the same pod. Conditions that are not set mean: ready, serving when
// ready, not terminating.
func convertEndpoint(e *discoveryv1.Endpoint, v6 bool) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	a, ok := parseAddr(e.Addresses[0])
	if !ok || a.Is6() != v6 || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return endpoint{}, false
	}
	c := e.Conditions
	out := endpoint{addr: a, node: once(deref(e.NodeName)), zone: once(deref(e.Zone)), terminating: deref(c.Terminating)}
	if t := e.TargetRef; t != nil && t.Kind == "Pod" {
		out.pod = t.Name
	}
	if e.Hints != nil {
		out.zoneHints, out.nodeHints = hints(e.Hints)
	}
	out.ready = c.Ready == nil || *c.Ready
	out.serving = out.ready
	if c.Serving != nil {
		out.serving = *c.Serving
	}
	return out, true
}

// hints are the zones and the nodes whose clients the endpoint shall serve.
func hints(h *discoveryv1.EndpointHints) (zones, nodes api.Names) {
	var z, n []string
	for _, x := range h.ForZones {
		z = append(z, x.Name)
	}
	for _, x := range h.ForNodes {
		n = append(n, x.Name)
	}
	return api.Names(once(string(api.NamesOf(z...)))), api.Names(once(string(api.NamesOf(n...))))
}

// merge gives every port of the service the endpoints of the slices' ports of the same name and protocol, sorted, each once.
func merge(skeleton []api.ServicePort, parts []slice) []api.ServicePort {
	out := slices.Clone(skeleton)
	for i := range out {
		sp := &out[i]
		byAddr := map[netip.AddrPort]api.Endpoint{}
		rules, _ := parseWeights(sp.Weights) // was read before
		for _, part := range parts {
			for _, p := range part.ports {
				if p.name == sp.Name.Port && p.protocol == sp.Protocol {
					addEndpoints(byAddr, part.ends, p.port, rules)
				}
			}
		}
		sp.Endpoints = make([]api.Endpoint, 0, len(byAddr))
		for _, e := range byAddr {
			sp.Endpoints = append(sp.Endpoints, e)
		}
		slices.SortFunc(sp.Endpoints, func(a, b api.Endpoint) int { return a.Addr.Compare(b.Addr) })
	}
	return out
}

// addEndpoints adds endpoints at port. While an endpoint moves from one slice to another both may list it, one with older
// conditions; the usable one counts.
func addEndpoints(to map[netip.AddrPort]api.Endpoint, ends []endpoint, port uint16, rules []weightRule) {
	for i, e := range ends {
		addr := netip.AddrPortFrom(e.addr, port)
		add := api.Endpoint{
			Addr: addr, Node: e.node, Zone: e.zone, Ready: e.ready, Serving: e.serving, Terminating: e.terminating,
			ZoneHints: e.zoneHints, NodeHints: e.nodeHints, Weight: weightOf(rules, &ends[i]),
		}
		if have, dup := to[addr]; !dup || better(add, have) {
			to[addr] = add
		}
	}
}

func better(a, b api.Endpoint) bool {
	if a.Ready != b.Ready {
		return a.Ready
	}
	if a.Serving != b.Serving {
		return a.Serving
	}
	return !a.Terminating && b.Terminating
}

// once returns the text with the memory it has wherever else it is: thousands of endpoints name the same few nodes and zones.
func once(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
