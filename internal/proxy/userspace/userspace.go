// Package userspace plans the proxy mode of the walkthrough: the relay listens on one port for each service port, and iptables
// rules send the service's packets there. Packets that arrive at the node meet KUBE-PORTALS-CONTAINER and are redirected to
// the address of the interface they came in by; packets of the node's own processes meet KUBE-PORTALS-HOST and go to the node's address.
//
// Planning has two phases, because the kernel chooses the ports: Listeners says what to listen on, with the port held before
// where there is one; the relay opens the listeners and answers the Ports it holds; Rules sends packets to these.
//
// The mode knows TCP and UDP. A service of another protocol is answered with a reject, and Unsupported says why.
//
// Floor 2, planners: pure.
package userspace

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/proxy"
	"weft/internal/xt"
)

// Ports is the port each listener holds, by netstate.Listener.Key.
type Ports map[string]uint16

// localSuffix marks the listener of a service port that serves the endpoints of this node only. Port names have no slash.
const localSuffix = "/local"

// key is the netstate.Listener.Key of a service port's listener.
func key(s api.ServicePort, in proxy.Scope) string { return listener(s, in).Key() }

func listener(s api.ServicePort, in proxy.Scope) netstate.Listener {
	name := s.Name.String()
	if in == proxy.Local {
		name += localSuffix
	}
	return netstate.Listener{Service: name, Protocol: string(s.Protocol)}
}

// Unsupported says why the mode can't serve the service port, or "".
func Unsupported(s api.ServicePort) string {
	if s.Protocol != api.TCP && s.Protocol != api.UDP {
		return "proxy mode userspace can't serve " + s.Name.String() + ": it knows TCP and UDP, not " + string(s.Protocol)
	}
	return ""
}

// scopes returns the scopes whose endpoints the service port needs listeners for.
func scopes(s api.ServicePort) []proxy.Scope {
	var out []proxy.Scope
	if proxy.Internal(s) == proxy.Cluster || proxy.Exposed(s) {
		out = append(out, proxy.Cluster)
	}
	if proxy.Internal(s) == proxy.Local || proxy.Exposed(s) && proxy.External(s) == proxy.Local {
		out = append(out, proxy.Local)
	}
	return out
}

// Listeners plans the listeners of a service port: one for each set of endpoints that its traffic policies make, on all addresses of
// the node in both families, on the port in held or on any. A service without endpoints keeps its listener, and so its port.
func Listeners(n proxy.Node, s api.ServicePort, held Ports) []netstate.Listener {
	if Unsupported(s) != "" {
		return nil
	}
	var out []netstate.Listener
	for _, in := range scopes(s) {
		l := listener(s, in)
		l.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), held[l.Key()])
		l.Endpoints = slices.Concat(proxy.Endpoints(n, s, false, in), proxy.Endpoints(n, s, true, in))
		l.Weights, l.Balance, l.Affinity = proxy.Weights(s, l.Endpoints), string(s.Balance), s.AffinitySeconds
		out = append(out, l)
	}
	return out
}

// AllListeners plans the listeners of all service ports.
func AllListeners(n proxy.Node, services []api.ServicePort, held Ports) []netstate.Listener {
	var out []netstate.Listener
	for _, s := range services {
		out = append(out, Listeners(n, s, held)...)
	}
	return out
}

// AllRules plans the rules of all service ports: Base, and the union of their Rules.
func AllRules(n proxy.Node, services []api.ServicePort, ports Ports) xt.Ruleset {
	parts := make([]xt.Ruleset, 0, len(services)+1)
	parts = append(parts, Base(n))
	for _, s := range services {
		parts = append(parts, Rules(n, s, ports))
	}
	return xt.Union(parts...)
}
