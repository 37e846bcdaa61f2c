package kube

import (
	"net/netip"
	"slices"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"weft/internal/api"
)

// slice is an EndpointSlice as far as a service proxy looks at it.
type slice struct {
	service string // key of the service, "" for a slice of none
	ports   []slicePort
	ends    []api.Endpoint // at the first of the ports, in order of address
	pods    string         // the names of the endpoints' pods, one a line; "" when there are none
	plain   bool           // no endpoint is in it twice
	trigger string         // when what it tells of happened, as its annotation says
}

type slicePort struct {
	name     string
	protocol api.Protocol
	port     uint16
}

// endpoint is an endpoint with its pod's name, "" when unknown.
type endpoint struct {
	api.Endpoint
	pod string
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
	if name == "" || hasLabel(e.Labels, labelHeadless) || hasLabel(e.Labels, labelProxyName) ||
		e.AddressType != discoveryv1.AddressTypeIPv4 && e.AddressType != discoveryv1.AddressTypeIPv6 {
		return slice{}
	}
	out := slice{service: e.Namespace + "/" + name, trigger: strings.Clone(e.Annotations[corev1.EndpointsLastChangeTriggerTime])}
	for _, p := range e.Ports {
		sp := slicePort{protocol: protocol(deref(p.Protocol)), name: deref(p.Name), port: port(deref(p.Port))}
		if sp.port != 0 && sp.protocol != "" {
			out.ports = append(out.ports, sp)
		}
	}
	if len(out.ports) > 0 {
		out.take(e)
	}
	return out
}

// take takes the slice's endpoints.
func (s *slice) take(e *discoveryv1.EndpointSlice) {
	all := make([]endpoint, 0, len(e.Endpoints))
	for i := range e.Endpoints {
		if end, ok := convertEndpoint(&e.Endpoints[i], e.AddressType == discoveryv1.AddressTypeIPv6); ok {
			end.Addr = netip.AddrPortFrom(end.Addr.Addr(), s.ports[0].port)
			all = append(all, end)
		}
	}
	slices.SortStableFunc(all, func(a, b endpoint) int { return a.Addr.Compare(b.Addr) })
	s.ends, s.plain = make([]api.Endpoint, len(all)), true
	pods := make([]string, len(all))
	for i, x := range all {
		s.ends[i], pods[i] = x.Endpoint, x.pod
		s.plain = s.plain && (i == 0 || all[i-1].Addr != x.Addr)
	}
	s.pods = strings.Trim(strings.Join(pods, "\n"), "\n")
	if s.pods != "" {
		s.pods = strings.Join(pods, "\n")
	}
}

// convertEndpoint takes the first address: the others reach the same pod. Conditions that are not set mean: ready, serving, not terminating.
func convertEndpoint(e *discoveryv1.Endpoint, v6 bool) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	a, ok := parseAddr(e.Addresses[0])
	if !ok || a.Is6() != v6 || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return endpoint{}, false
	}
	c := e.Conditions
	out := endpoint{Endpoint: api.Endpoint{
		Addr: netip.AddrPortFrom(a, 0), Node: once(deref(e.NodeName)), Zone: once(deref(e.Zone)), Terminating: deref(c.Terminating),
	}}
	if t := e.TargetRef; t != nil && t.Kind == "Pod" {
		out.pod = t.Name
	}
	if e.Hints != nil {
		out.ZoneHints, out.NodeHints = hints(e.Hints)
	}
	out.Ready = c.Ready == nil || *c.Ready
	out.Serving = c.Serving == nil || *c.Serving
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
		rules, _ := parseWeights(sp.Weights) // was read before
		if sp.Endpoints = shared(sp, parts, rules); sp.Endpoints != nil {
			continue
		}
		byAddr := map[netip.AddrPort]api.Endpoint{}
		for _, part := range parts {
			for _, p := range part.ports {
				if p.serves(sp) {
					addEndpoints(byAddr, part, p.port, rules)
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

func (p slicePort) serves(s *api.ServicePort) bool {
	return p.name == s.Name.Port && p.protocol == s.Protocol
}

// shared are a service port's endpoints where they are a slice's as it is, so that they are in memory once; else nil.
func shared(s *api.ServicePort, parts []slice, rules []weightRule) []api.Endpoint {
	if len(rules) > 0 || len(parts) != 1 || !parts[0].plain || len(parts[0].ends) == 0 {
		return nil
	}
	n := 0
	for _, p := range parts[0].ports {
		if p.serves(s) {
			n++
		}
	}
	if first := parts[0].ports[0]; n != 1 || !first.serves(s) {
		return nil
	}
	return slices.Clip(parts[0].ends)
}

// addEndpoints adds a slice's endpoints at port. While an endpoint moves from one slice to another both may list it, one with older
// conditions; the usable one counts.
func addEndpoints(to map[netip.AddrPort]api.Endpoint, from slice, port uint16, rules []weightRule) {
	var pods []string
	if len(rules) > 0 && from.pods != "" {
		pods = strings.Split(from.pods, "\n")
	}
	for i, add := range from.ends {
		add.Addr = netip.AddrPortFrom(add.Addr.Addr(), port)
		pod := ""
		if pods != nil {
			pod = pods[i]
		}
		add.Weight = weightOf(rules, &endpoint{add, pod})
		if have, dup := to[add.Addr]; !dup || better(add, have) {
			to[add.Addr] = add
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
