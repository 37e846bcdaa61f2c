// Package hostgw plans the overlay without tunnel: each peer's subnet is a route by its own address, which must lie in a network that
// both hosts are connected to.
//
// Floor 2, planners.
package hostgw

import (
	"fmt"
	"net/netip"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Name is the BackendType of the leases.
const Name = "host-gw"

// Backend plans host-gw.
type Backend struct{}

// Name returns "host-gw".
func (Backend) Name() string { return Name }

// Overhead is 0: packets travel as they are.
func (Backend) Overhead(overlay.Self) int { return 0 }

// Plan returns the routes to all peers. A peer behind a gateway gets none: the gateway would not know the subnet.
func (b Backend) Plan(self overlay.Self, leases []api.Lease) netstate.State {
	peers, _ := overlay.Peers(self, leases)
	objects := make([]netstate.Object, 0, len(peers))
	for _, l := range peers {
		objects = b.appendPeer(objects, self, l)
	}
	return netstate.New(objects...)
}

// Base returns the empty State: routes need no device of ours.
func (Backend) Base(overlay.Self) netstate.State { return netstate.New() }

// Peer returns the routes to one peer, which must be one of those that overlay.Peers returns.
func (b Backend) Peer(self overlay.Self, l api.Lease) netstate.State {
	return netstate.New(b.appendPeer(nil, self, l)...)
}

// Unreached says why a peer's lease, good in itself, gets no path or only one of its families does; "" when it gets all.
func (Backend) Unreached(self overlay.Self, l api.Lease) string {
	for _, f := range []struct {
		own, subnet netip.Prefix
		public      netip.Addr
		field       string
	}{{self.Lease.Subnet, l.Subnet, l.PublicIP, "PublicIP"}, {self.Lease.SubnetV6, l.SubnetV6, l.PublicIPv6, "PublicIPv6"}} {
		switch {
		case !f.own.IsValid() || !f.subnet.IsValid() || self.OnLink(f.public):
		case !f.public.IsValid() || f.public.IsUnspecified():
			return fmt.Sprintf("%s: missing, packets for %s have no host to go to: give that host an address of the family", f.field, f.subnet)
		default:
			return fmt.Sprintf("%s: %s is in no network that %s is connected to, and a gateway on the way would not know %s: "+
				"use backend vxlan, with DirectRouting for the hosts that are", f.field, f.public, self.Dev, f.subnet)
		}
	}
	return ""
}

func (Backend) appendPeer(objects []netstate.Object, self overlay.Self, l api.Lease) []netstate.Object {
	if l.BackendType != Name {
		return objects
	}
	if self.Lease.Subnet.IsValid() && l.Subnet.IsValid() && self.OnLink(l.PublicIP) {
		objects = append(objects, netstate.Route{Dst: l.Subnet, Via: l.PublicIP, Dev: self.Dev, MTU: self.RouteMTU(l.Subnet, l.PublicIP, 0)})
	}
	if self.Lease.SubnetV6.IsValid() && l.SubnetV6.IsValid() && self.OnLink(l.PublicIPv6) {
		objects = append(objects, netstate.Route{Dst: l.SubnetV6, Via: l.PublicIPv6, Dev: self.Dev, MTU: self.RouteMTU(l.SubnetV6, l.PublicIPv6, 0)})
	}
	return objects
}
