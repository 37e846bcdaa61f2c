package proxy

import (
	"net/netip"
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/netstate"
)

// Loopback is the loopback network of a family.
func Loopback(v6 bool) netip.Prefix {
	if v6 {
		return netip.MustParsePrefix("::1/128")
	}
	return netip.MustParsePrefix("127.0.0.0/8")
}

// NodePortNetworks returns the networks of the family whose local addresses accept NodePorts, without those of loopback; all: every local
// address but loopback does. As with kube-proxy a family that NodePortAddresses does not name is not limited.
func (n Node) NodePortNetworks(v6 bool) (networks []netip.Prefix, all bool) {
	limited := false
	for _, p := range n.NodePortAddresses {
		if !p.IsValid() || p.Addr().Is6() != v6 || p.Addr().Is4In6() {
			continue
		}
		limited = true
		switch p = p.Masked(); {
		case p.Bits() == 0:
			return nil, true
		case !Loopback(v6).Contains(p.Addr()) && !slices.Contains(networks, p):
			networks = append(networks, p)
		}
	}
	return networks, !limited
}

// localhost reports whether 127.0.0.1 or ::1 accepts NodePorts.
func (n Node) localhost(v6 bool) bool {
	if !n.LocalhostNodePorts {
		return false
	}
	limited := false
	for _, p := range n.NodePortAddresses {
		if p.IsValid() && p.Addr().Is6() == v6 && !p.Addr().Is4In6() {
			limited = true
			if p.Contains(LocalhostAddr(v6)) {
				return true
			}
		}
	}
	return !limited
}

// LocalhostAddr is 127.0.0.1 or ::1.
func LocalhostAddr(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// HasFamily reports whether the service has addresses of the family. A NodePort has no address: its families are those of the service.
func HasFamily(s api.ServicePort, v6 bool) bool {
	return slices.ContainsFunc(s.ClusterIPs, func(a netip.Addr) bool { return a.Is6() == v6 })
}

// OnLocalhost reports whether NodePorts of the service are served on the loopback address of the family: one that the node has addresses of.
func OnLocalhost(n Node, s api.ServicePort, v6 bool) bool {
	return s.NodePort != 0 && n.Address(v6).IsValid() && (s.Protocol == api.TCP || s.Protocol == api.UDP) && HasFamily(s, v6) && n.localhost(v6)
}

// Suffixes of the names of the listeners on loopback, by family. Names of ports have no slash.
var localhostSuffix = map[bool]string{false: "/localhost", true: "/localhost6"}

// IsLocalhost reports whether a listener's key is that of one on loopback.
func IsLocalhost(key string) bool {
	return strings.Contains(key, localhostSuffix[false])
}

// Localhost plans the listeners that serve a service's NodePort on 127.0.0.1 and ::1, where the mode's rules do not: a connection from a
// loopback address leads nowhere but to loopback, so it must end there and another one lead to the endpoint. Clients on the node reach all
// endpoints, whatever the traffic policy. Without endpoints there is no listener, and the kernel refuses.
func Localhost(n Node, s api.ServicePort) []netstate.Listener {
	var out []netstate.Listener
	for _, v6 := range []bool{false, true} {
		if !OnLocalhost(n, s, v6) {
			continue
		}
		if e := Endpoints(n, s, v6, Cluster); len(e) > 0 {
			out = append(out, netstate.Listener{
				Service: s.Name.String() + localhostSuffix[v6], Protocol: string(s.Protocol), Fixed: true,
				Addr: netip.AddrPortFrom(LocalhostAddr(v6), s.NodePort), Endpoints: e, Affinity: s.AffinitySeconds,
				Weights: Weights(s, e), Balance: string(s.Balance),
			})
		}
	}
	return out
}

// AllLocalhost plans the listeners on loopback of all service ports.
func AllLocalhost(n Node, services []api.ServicePort) []netstate.Listener {
	var out []netstate.Listener
	for i := range services {
		if services[i].NodePort != 0 {
			out = append(out, Localhost(n, services[i])...)
		}
	}
	return out
}

// NodePortSources are the networks from which clients reach the service's NodePort (loadBalancerSourceRanges); limited is false when all do.
// The node itself always does. Where the load balancer opens connections of its own (ingress of ipMode Proxy, or a host name) its source
// tells nothing of the client, and keeping to the ranges is the balancer's task.
func NodePortSources(n Node, s api.ServicePort) (ranges []netip.Prefix, limited bool) {
	if n.OpenNodePorts || s.BalancerProxies || len(s.SourceRanges) == 0 {
		return nil, false
	}
	return s.SourceRanges, true
}
