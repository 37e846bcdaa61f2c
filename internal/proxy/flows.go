package proxy

import (
	"net/netip"
	"slices"

	"weft/internal/api"
)

// A rule is asked for the first packet of a flow only. UDP has no connection that would end when its endpoint goes: as long as a client
// sends, its flow stays translated to an address that nobody has, or not translated at all when the service had no endpoint at first. So
// when the endpoints of a UDP service change, the flows that lead elsewhere than to one of them must be forgotten (kube-proxy does the
// same). TCP connections are left alone: their ends find out themselves, and those to a terminating endpoint may finish.

// Frontend is where packets for a UDP service arrive: an address and a port; without address a NodePort, on any address of the node.
type Frontend struct {
	Addr netip.Addr
	Port uint16
}

// frontends are those of a service port, none for protocols with connections.
func frontends(s api.ServicePort) []Frontend {
	if s.Protocol != api.UDP {
		return nil
	}
	var out []Frontend
	for _, a := range slices.Concat(s.ClusterIPs, s.External) {
		out = append(out, Frontend{a, s.Port})
	}
	for _, p := range s.LoadBalancer {
		out = append(out, Frontend{p.Addr(), s.Port})
	}
	if s.NodePort != 0 {
		out = append(out, Frontend{Port: s.NodePort})
	}
	return out
}

// Serving are the addresses that flows of a service port may lead to: of the endpoints that are ready or still serve, whether new flows are
// sent there or not.
func Serving(s api.ServicePort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range s.Endpoints {
		if e.Ready || e.Serving {
			out = append(out, e.Addr)
		}
	}
	return out
}

// Flows knows where the flows of UDP services may lead. The zero value knows no service.
type Flows struct {
	fronts map[api.ServicePortName][]Frontend
	served map[Frontend]map[api.ServicePortName][]netip.AddrPort
}

// Set notes where flows of a service port may lead; an address that is zero stands for all of the node's. It returns the frontends whose
// flows may now lead elsewhere than they do. A service port without frontends (another protocol, or gone) is forgotten.
func (f *Flows) Set(s api.ServicePort, to []netip.AddrPort) []Frontend {
	if f.served == nil {
		f.fronts, f.served = map[api.ServicePortName][]Frontend{}, map[Frontend]map[api.ServicePortName][]netip.AddrPort{}
	}
	now := frontends(s)
	before := f.fronts[s.Name]
	var touched []Frontend
	for _, x := range before {
		if !slices.Contains(now, x) {
			delete(f.served[x], s.Name)
			touched = append(touched, x)
		}
	}
	for _, x := range now {
		if slices.Contains(before, x) && slices.Equal(f.served[x][s.Name], to) {
			continue
		}
		if f.served[x] == nil {
			f.served[x] = map[api.ServicePortName][]netip.AddrPort{}
		}
		f.served[x][s.Name] = to
		touched = append(touched, x)
	}
	for _, x := range touched {
		if len(f.served[x]) == 0 {
			delete(f.served, x)
		}
	}
	f.fronts[s.Name] = now
	if len(now) == 0 {
		delete(f.fronts, s.Name)
	}
	return touched
}

// Remove forgets a service port and returns the frontends it had.
func (f *Flows) Remove(s api.ServicePort) []Frontend {
	s.Protocol = "" // none that has frontends
	return f.Set(s, nil)
}

// All are the frontends of all services.
func (f *Flows) All() []Frontend {
	out := make([]Frontend, 0, len(f.served))
	for x := range f.served {
		out = append(out, x)
	}
	return out
}

// Stale reports whether a flow to an address, which answerer answers, leads where its service's flows may not, or to no service; touched
// are the frontends to look at. local reports whether an address is the node's.
func (f *Flows) Stale(to, answerer netip.AddrPort, touched map[Frontend]bool, local func(netip.Addr) bool) bool {
	x := Frontend{to.Addr(), to.Port()}
	if !touched[x] {
		if x = (Frontend{Port: to.Port()}); !touched[x] || !local(to.Addr()) {
			return false
		}
	}
	for _, list := range f.served[x] {
		for _, a := range list {
			if a == answerer || !a.Addr().IsValid() && a.Port() == answerer.Port() && local(answerer.Addr()) {
				return false
			}
		}
	}
	return true
}

// Orphan reports whether a flow that was translated seems to be one of a service that went while nobody looked: it leads from an address of
// the service range, or from a NodePort to the pod network. nodePorts is the range of NodePorts, its ends included.
func (f *Flows) Orphan(to, answerer netip.AddrPort, services, pods []netip.Prefix, nodePorts [2]uint16, local func(netip.Addr) bool) bool {
	in := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if in(services, to.Addr()) {
		return f.served[Frontend{to.Addr(), to.Port()}] == nil
	}
	isNodePort := local(to.Addr()) && to.Port() >= nodePorts[0] && to.Port() <= nodePorts[1]
	return isNodePort && in(pods, answerer.Addr()) && f.served[Frontend{Port: to.Port()}] == nil
}
