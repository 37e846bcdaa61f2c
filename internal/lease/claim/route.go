package claim

import (
	"net/netip"
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/lease"
)

// HostRoute is a route or an address of the host that is not the overlay's: what it leads to, a subnet may not take away.
type HostRoute struct {
	Dst netip.Prefix
	Via netip.Addr // the gateway, zero: none
	Dev string     // "" when it is not known
}

// String is the route as ip-route(8) writes it.
func (h HostRoute) String() string {
	words := []string{h.Dst.String()}
	if h.Via.IsValid() {
		words = append(words, "via", h.Via.String())
	}
	if h.Dev != "" {
		words = append(words, "dev", h.Dev)
	}
	return strings.Join(words, " ")
}

// Obstacle returns the first host route that takes addresses away from one of the subnets, ok false when there is none. A route
// wider than the network of its family does not: the subnet is the more specific one.
func Obstacle(c lease.Config, routes []HostRoute, subnets ...netip.Prefix) (h HostRoute, ok bool) {
	for _, p := range subnets {
		i := slices.IndexFunc(routes, func(h HostRoute) bool {
			return overlap(h.Dst, p) && conflicts(h.Dst, c.Range(p.Addr().Is6()).Network)
		})
		if i >= 0 {
			return routes[i], true
		}
	}
	return HostRoute{}, false
}

// OfOverlay says whether a route of the host is one that an overlay made for the lease: to its very subnet, by way of its host (or of
// hosts, which says whether an address is another host's, when the lease has changed hands since).
func (h HostRoute) OfOverlay(l api.Lease, hosts func(netip.Addr) bool) bool {
	if h.Dst != lease.Subnet(l, h.Dst.Addr().Is6()) || !h.Via.IsValid() {
		return false
	}
	return h.Via == l.PublicIP || h.Via == l.PublicIPv6 || hosts(h.Via)
}

// isHost says whether an address is the public one of a host of the network.
func (v *View) isHost(a netip.Addr) bool {
	return slices.ContainsFunc(v.order, func(r *Record) bool { return a == r.Lease.PublicIP || a == r.Lease.PublicIPv6 })
}
