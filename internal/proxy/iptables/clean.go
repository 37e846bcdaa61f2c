package iptables

import (
	"net/netip"
	"slices"

	"weft/internal/api"
)

// clean returns the service without addresses that no packet can have or go to, and without those that are there twice: a cluster
// address is no external one, and an external address that is a load balancer's too keeps the load balancer's source ranges.
func clean(s api.ServicePort) api.ServicePort {
	s.ClusterIPs = unique(without(s.ClusterIPs, badAddr))
	s.LoadBalancer = unique(without(s.LoadBalancer, func(p netip.Prefix) bool {
		return !p.IsValid() || badAddr(p.Addr()) || slices.Contains(s.ClusterIPs, p.Addr())
	}))
	s.External = unique(without(s.External, func(a netip.Addr) bool {
		taken := func(p netip.Prefix) bool { return p.Addr() == a }
		return badAddr(a) || slices.Contains(s.ClusterIPs, a) || slices.ContainsFunc(s.LoadBalancer, taken)
	}))
	seen := make(map[netip.AddrPort]bool, len(s.Endpoints))
	s.Endpoints = without(s.Endpoints, func(e api.Endpoint) bool {
		bad := badAddr(e.Addr.Addr()) || e.Addr.Port() == 0 || seen[e.Addr]
		seen[e.Addr] = true
		return bad
	})
	return s
}

func badAddr(a netip.Addr) bool {
	return !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified()
}

// without returns the list without the bad ones. It does not change the list it gets, and asks about each one once.
func without[T any](list []T, bad func(T) bool) []T {
	var out []T
	for _, x := range list {
		if !bad(x) {
			out = append(out, x)
		}
	}
	return out
}

// unique returns the list without repetitions.
func unique[T comparable](list []T) []T {
	var out []T
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// of returns the addresses of a family.
func of(v6 bool, list []netip.Addr) []netip.Addr {
	return without(list, func(a netip.Addr) bool { return a.Is6() != v6 })
}

// prefixesOf returns the networks of a family without host bits.
func prefixesOf(v6 bool, list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if p.IsValid() && p.Addr().Is6() == v6 && !p.Addr().Is4In6() {
			out = append(out, p.Masked())
		}
	}
	return unique(out)
}
