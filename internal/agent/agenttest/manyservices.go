package agenttest

import (
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/api"
)

// Services are n services with m endpoints each, as a snapshot holds them: each with memory of its own.
func Services(n, m int) []api.ServicePort {
	out := make([]api.ServicePort, n)
	for i := range out {
		out[i] = api.ServicePort{
			Name: api.ServicePortName{Namespace: "default", Name: fmt.Sprintf("s%05d", i)}, Protocol: api.TCP, Port: 80,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)})},
		}
		for j := range m {
			a := netip.AddrFrom4([4]byte{172, 16, byte(i), byte(j + 1)})
			out[i].Endpoints = append(out[i].Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(a, 8080), Ready: true, Serving: true})
		}
	}
	return out
}

// Changed is a copy of the services in which one has other endpoints, as the next snapshot of a watch: the rest shares its memory.
func Changed(services []api.ServicePort, i int) []api.ServicePort {
	next := slices.Clone(services)
	e := slices.Clone(next[i].Endpoints)
	e[0].Addr = netip.AddrPortFrom(e[0].Addr.Addr(), e[0].Addr.Port()+1)
	next[i].Endpoints = e
	return next
}
