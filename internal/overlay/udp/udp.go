// Package udp plans the overlay that needs nothing of the kernel but a TUN device: the relay of kernel/tun/datagram puts each packet that
// leaves by the device into a UDP datagram of its own, as flannel's udp backend does. IPv6 pods' packets travel the same way, which flannel
// does not know.
//
// Floor 2, planners.
package udp

import (
	"cmp"
	"net/netip"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Name is the backend's type in the network configuration. The leases do not bear it: flannel leaves their BackendType out.
const Name = "udp"

// Device is the TUN device.
const Device = "flannel0"

// DefaultPort is the UDP port of both ends, as in flannel's configuration.
const DefaultPort = 8285

// Bytes a packet grows by: outer IPv4 or IPv6 header and UDP.
const (
	OverheadV4 = 20 + 8
	OverheadV6 = 40 + 8
)

// Backend plans the UDP tunnel.
type Backend struct{}

// Name returns "udp".
func (Backend) Name() string { return Name }

// Overhead is 28 bytes, or 48 when the underlay is IPv6 only.
func (Backend) Overhead(self overlay.Self) int {
	if underlayV6(self) {
		return OverheadV6
	}
	return OverheadV4
}

// Plan returns the device with its addresses, and a route and a Tunnel to each peer.
func (b Backend) Plan(self overlay.Self, leases []api.Lease) netstate.State {
	peers, _ := overlay.Peers(self, leases)
	objects := make([]netstate.Object, 0, 2*len(peers)+8)
	objects = append(objects, b.Base(self).Objects()...)
	for _, l := range peers {
		objects = appendPeer(objects, self, l)
	}
	return netstate.New(objects...)
}

// Base returns the device with its addresses and the network's route. What is sent to a subnet that nobody holds comes to the relay too, which answers
// that it can't be reached, instead of leaving by the default route.
func (b Backend) Base(self overlay.Self) netstate.State {
	s := netstate.New(
		netstate.Link{
			Name: Device, Type: netstate.TypeTUN, MTU: overlay.MTU(b, self), Alias: netstate.AliasPrefix + "tunnel", Up: true,
		},
	)
	if sub := self.Lease.Subnet; sub.IsValid() {
		s.Add(
			netstate.Addr{Dev: Device, Prefix: host(sub)},
			// Loose, as the pods of a peer that changes its backend may still send another way.
			netstate.Sysctl{Name: "net/ipv4/conf/" + Device + "/rp_filter", Value: "2"},
			// The relay's ICMP errors come out of the device with the device's own address.
			netstate.Sysctl{Name: "net/ipv4/conf/" + Device + "/accept_local", Value: "1"},
			netstate.Route{Dst: cover(self.Network, sub), Dev: Device},
		)
	}
	if sub := self.Lease.SubnetV6; sub.IsValid() {
		s.Add(
			netstate.Addr{Dev: Device, Prefix: host(sub)},
			netstate.Sysctl{Name: "net/ipv6/conf/" + Device + "/accept_ra", Value: "0"},
			netstate.Route{Dst: cover(self.NetworkV6, sub), Dev: Device},
		)
	}
	return s
}

// Peer returns the tunnels to one peer, which must be one of those that overlay.Peers returns.
func (Backend) Peer(self overlay.Self, l api.Lease) netstate.State {
	return netstate.New(appendPeer(nil, self, l)...)
}

// appendPeer takes leases without type, as flannel writes them, and those of the Kubernetes annotation, which name it.
func appendPeer(objects []netstate.Object, self overlay.Self, l api.Lease) []netstate.Object {
	if l.BackendType != Name && l.BackendType != "" {
		return objects
	}
	port := cmp.Or(self.Options.Port, DefaultPort)
	local, remote := self.Addr, l.PublicIP
	if underlayV6(self) {
		local, remote = self.AddrV6, l.PublicIPv6
	}
	if !remote.IsValid() || remote.IsUnspecified() || !local.IsValid() {
		return objects
	}
	overhead := Backend{}.Overhead(self)
	for _, f := range [...]struct{ own, peer netip.Prefix }{{self.Lease.Subnet, l.Subnet}, {self.Lease.SubnetV6, l.SubnetV6}} {
		if f.own.IsValid() && f.peer.IsValid() {
			objects = append(objects,
				// A route for each, though one for the network would do: where a peer's backend changes, the others' stay.
				netstate.Route{Dst: f.peer, Dev: Device, MTU: self.RouteMTU(f.peer, remote, overhead)},
				netstate.Tunnel{
					Dev: Device, Subnet: f.peer, Local: netip.AddrPortFrom(local, port), Remote: netip.AddrPortFrom(remote, port),
				})
		}
	}
	return objects
}

// Unreached says why a peer's lease, good in itself, gets no path; "" when it gets one.
func (Backend) Unreached(self overlay.Self, l api.Lease) string {
	field, remote := "PublicIP", l.PublicIP
	if underlayV6(self) {
		field, remote = "PublicIPv6", l.PublicIPv6
	}
	if remote.IsValid() && !remote.IsUnspecified() {
		return ""
	}
	return field + ": missing, and this host sends datagrams over that family: give that host such an address"
}

// underlayV6 reports whether datagrams travel over IPv6: only where the host has no IPv4 address.
func underlayV6(self overlay.Self) bool { return !self.Addr.IsValid() && self.AddrV6.IsValid() }

// cover is the network, or where it is not known the subnet.
func cover(network, subnet netip.Prefix) netip.Prefix {
	if network.IsValid() {
		return network.Masked()
	}
	return subnet.Masked()
}

func host(p netip.Prefix) netip.Prefix {
	a := p.Masked().Addr()
	return netip.PrefixFrom(a, a.BitLen())
}
