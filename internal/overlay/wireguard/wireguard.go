// Package wireguard plans the encrypted overlay: a WireGuard device, or the TUN device of a user-space one, and for each peer a Tunnel with
// its public key, whose subnets are the peer's allowed IPs.
//
// Floor 2, planners.
package wireguard

import (
	"cmp"
	"fmt"
	"net/netip"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Name is the BackendType of the leases.
const Name = "wireguard"

// The devices. DeviceV6 carries the IPv6 pods' packets in mode separate; in the other modes Device carries all.
const (
	Device   = "flannel-wg"
	DeviceV6 = "flannel-wg-v6"
)

// The devices that stand in for those while the port changes. No other device's name may begin so: the seal lets packets out by all of them.
const (
	StandIn   = "weft-wg"
	StandInV6 = "weft-wg-v6"
)

// Devices are the names of all devices.
func Devices() []string { return []string{Device, DeviceV6, StandIn, StandInV6} }

// StandsIn reports whether the device is one that stands in, and for which.
func StandsIn(dev string) (device string, ok bool) {
	switch dev {
	case StandIn:
		return Device, true
	case StandInV6:
		return DeviceV6, true
	}
	return "", false
}

// The modes of the network configuration.
const (
	ModeSeparate = "separate" // IPv4 pods over IPv4, IPv6 pods over IPv6, each with a device of its own
	ModeAuto     = "auto"     // one device; a peer's endpoint is its IPv4 address unless only the IPv6 one is public
	ModeIPv4     = "ipv4"     // one device over IPv4
	ModeIPv6     = "ipv6"     // one device over IPv6
)

// Default ports of the network configuration.
const (
	DefaultPort   = 51820
	DefaultPortV6 = 51821
)

// Overhead is the bytes a packet grows by: outer IPv6 header, UDP, WireGuard's header and authentication tag. Over IPv4 20 fewer would do,
// but the hosts of a network must agree, and this is flannel's.
const Overhead = 40 + 8 + 16 + 16

// Backend plans WireGuard.
type Backend struct{}

// Name returns "wireguard".
func (Backend) Name() string { return Name }

// Overhead is 80 bytes.
func (Backend) Overhead(overlay.Self) int { return Overhead }

// Plan returns the devices with their addresses and routes and the tunnels to all peers.
func (b Backend) Plan(self overlay.Self, leases []api.Lease) netstate.State {
	peers, _ := overlay.Peers(self, leases)
	objects := make([]netstate.Object, 0, 4*len(peers)+16)
	objects = append(objects, b.Base(self).Objects()...)
	for _, l := range peers {
		objects = appendPeer(objects, self, l)
	}
	return netstate.New(objects...)
}

// Base returns the devices with their addresses and routes. The route of the whole network makes that nothing for a pod leaves in clear,
// also while its host's lease is not known.
func (b Backend) Base(self overlay.Self) netstate.State {
	s := netstate.New()
	kind := netstate.TypeWireGuard
	if self.Options.Userspace {
		kind = netstate.TypeTUN
	}
	for _, f := range families(self) {
		s.Add(
			netstate.Link{
				Name: f.dev, Type: kind, MTU: overlay.MTU(b, self), Alias: netstate.AliasPrefix + "wireguard", Up: true,
			},
			netstate.Addr{Dev: f.dev, Prefix: host(f.subnet)},
		)
		if f.v6 {
			s.Add(netstate.Sysctl{Name: "net/ipv6/conf/" + f.dev + "/accept_ra", Value: "0"},
				netstate.Route{Dst: f.network, Dev: f.dev})
			continue
		}
		// Loose, as the pods of a peer that changes its backend may still send another way.
		s.Add(netstate.Sysctl{Name: "net/ipv4/conf/" + f.dev + "/rp_filter", Value: "2"},
			netstate.Route{Dst: f.network, Dev: f.dev})
	}
	return s
}

// Peer returns the tunnels to one peer, which must be one of those that overlay.Peers returns.
func (Backend) Peer(self overlay.Self, l api.Lease) netstate.State {
	return netstate.New(appendPeer(nil, self, l)...)
}

func appendPeer(objects []netstate.Object, self overlay.Self, l api.Lease) []netstate.Object {
	if l.BackendType != Name || l.WGKey == "" || l.WGKey == self.Lease.WGKey {
		return objects
	}
	for _, f := range families(self) {
		subnet := l.Subnet
		if f.v6 {
			subnet = l.SubnetV6
		}
		remote := endpoint(self, f, l)
		if !subnet.IsValid() || !remote.IsValid() {
			continue
		}
		from := netip.IPv4Unspecified()
		if remote.Addr().Is6() {
			from = netip.IPv6Unspecified()
		}
		if mode(self.Options) == ModeAuto {
			from = netip.IPv6Unspecified() // one socket for peers of either family
		}
		objects = append(objects,
			// A route for each, though one for the network would do: where a peer's backend changes, the others' stay.
			netstate.Route{Dst: subnet, Dev: f.dev, MTU: self.RouteMTU(subnet, remote.Addr(), Overhead)},
			netstate.Tunnel{
				Dev: f.dev, Subnet: subnet, Local: netip.AddrPortFrom(from, f.port), Remote: remote, PeerKey: l.WGKey,
				Keepalive: self.Options.Keepalive,
			})
	}
	return objects
}

// Unreached says why a peer's lease, good in itself, gets no path or only one of its families does; "" when it gets all.
func (Backend) Unreached(self overlay.Self, l api.Lease) string {
	for _, f := range families(self) {
		subnet := l.Subnet
		if f.v6 {
			subnet = l.SubnetV6
		}
		if subnet.IsValid() && !endpoint(self, f, l).IsValid() {
			return fmt.Sprintf("no public address that Mode %q sends packets for %s to: give that host one, or choose another Mode",
				mode(self.Options), subnet)
		}
	}
	return ""
}

// endpoint is where a peer's packets of the family go, the zero AddrPort when it can't be reached. A peer that does not tell its port
// listens where we do.
func endpoint(self overlay.Self, f family, l api.Lease) netip.AddrPort {
	v6 := f.v6
	switch mode(self.Options) {
	case ModeIPv4:
		v6 = false
	case ModeIPv6:
		v6 = true
	case ModeAuto:
		v6 = !usable(l.PublicIP) || !self.Addr.IsValid() ||
			(usable(l.PublicIPv6) && l.PublicIP.IsPrivate() && !self.OnLink(l.PublicIP) && public(l.PublicIPv6) && public(self.AddrV6))
	}
	a, port := l.PublicIP, cmp.Or(l.WGPort, l.WGPortV6)
	if v6 {
		a = l.PublicIPv6
	}
	if f.alone {
		port = l.WGPortV6
	}
	if !usable(a) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, cmp.Or(port, f.port))
}

func mode(o overlay.Options) string { return cmp.Or(o.Mode, ModeSeparate) }

// usable reports whether packets can be sent to the address: flannel writes 0.0.0.0 where a node has no IPv4 address.
func usable(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// public reports whether the address is likely reached from everywhere.
func public(a netip.Addr) bool { return a.IsValid() && a.IsGlobalUnicast() && !a.IsPrivate() }

// Ports returns the UDP ports that the node publishes for its two families.
func Ports(o overlay.Options) (v4, v6 uint16) {
	v4, v6 = cmp.Or(o.ListenPort, DefaultPort), cmp.Or(o.ListenPortV6, DefaultPortV6)
	if mode(o) != ModeSeparate {
		v6 = v4
	}
	return v4, v6
}

// family is what differs between IPv4 and IPv6 pods.
type family struct {
	v6              bool
	dev             string
	subnet, network netip.Prefix
	port            uint16
	alone           bool // an IPv6 device of its own
}

// families returns the node's families: those it has a subnet for.
func families(self overlay.Self) []family {
	v4, v6 := Ports(self.Options)
	var out []family
	if s := self.Lease.Subnet; s.IsValid() {
		out = append(out, family{dev: deviceV4(self.Options), subnet: s, network: cover(self.Network, s), port: v4})
	}
	if s := self.Lease.SubnetV6; s.IsValid() {
		f := family{v6: true, dev: DeviceV6, subnet: s, network: cover(self.NetworkV6, s), port: v6, alone: true}
		switch {
		case mode(self.Options) != ModeSeparate:
			f.dev, f.alone = deviceV4(self.Options), false
		case self.Options.StandInV6:
			f.dev = StandInV6
		}
		out = append(out, f)
	}
	return out
}

// deviceV4 is the IPv4 pods' device, in modes other than separate that of all.
func deviceV4(o overlay.Options) string {
	if o.StandIn {
		return StandIn
	}
	return Device
}

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
