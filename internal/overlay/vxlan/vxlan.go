// Package vxlan plans flannel's default overlay: one VXLAN device for each address family (RFC 7348), and for every peer a
// neighbour entry, a forwarding entry and a route, so that nothing is learned and nothing is flooded.
//
// Floor 2, planners.
package vxlan

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Name is the BackendType of the leases.
const Name = "vxlan"

// Defaults of the network configuration.
const (
	DefaultVNI  = 1
	DefaultPort = 8472
)

// Bytes a packet grows by: outer IPv4 or IPv6 header, UDP, VXLAN and the inner Ethernet header.
const (
	OverheadV4 = 20 + 8 + 8 + 14
	OverheadV6 = 40 + 8 + 8 + 14
)

// Backend plans VXLAN.
type Backend struct{}

// Name returns "vxlan".
func (Backend) Name() string { return Name }

// Overhead is 50 bytes, or 70 when the node has IPv6 pods: their packets travel over IPv6.
func (Backend) Overhead(self overlay.Self) int {
	if self.Lease.SubnetV6.IsValid() {
		return OverheadV6
	}
	return OverheadV4
}

// Device is the name of the VXLAN device of a family: "flannel.<VNI>" or "flannel-v6.<VNI>"; of one that stands in for it while the port
// changes "weft4.<VNI>" or "weft6.<VNI>".
func Device(o overlay.Options, v6 bool) string {
	name := "flannel.%d"
	switch {
	case o.StandIn && v6:
		name = standIn6 + "%d"
	case o.StandIn:
		name = standIn4 + "%d"
	case v6:
		name = "flannel-v6.%d"
	}
	return fmt.Sprintf(name, cmp.Or(o.VNI, DefaultVNI))
}

// The names of devices that stand in; with the longest VNI they have 14 of the 15 characters there are.
const (
	standIn4 = "weft4."
	standIn6 = "weft6."
)

// StandIn reports whether the device is one that stands in.
func StandIn(dev string) bool {
	return strings.HasPrefix(dev, standIn4) || strings.HasPrefix(dev, standIn6)
}

// Plan returns the devices with their addresses and the paths to all peers.
func (b Backend) Plan(self overlay.Self, leases []api.Lease) netstate.State {
	peers, _ := overlay.Peers(self, leases)
	f := families(self)
	objects := make([]netstate.Object, 0, 3*len(f)*len(peers)+8)
	objects = append(objects, b.Base(self).Objects()...)
	for _, l := range peers {
		objects = appendPeer(objects, self, f, l)
	}
	return netstate.New(objects...)
}

// Base returns the devices with their addresses.
func (Backend) Base(self overlay.Self) netstate.State {
	s := netstate.New()
	for _, f := range families(self) {
		s.Add(netstate.Link{
			Name: f.dev, Type: netstate.TypeVXLAN, MTU: self.OuterMTU() - f.overhead, MAC: f.mac, Alias: netstate.AliasPrefix + "vtep", Up: true,
			VXLAN: netstate.VXLAN{
				VNI: cmp.Or(self.Options.VNI, DefaultVNI), Local: f.local, Dev: self.Dev, Port: cmp.Or(self.Options.Port, DefaultPort),
				Learning: self.Options.Learning, GBP: self.Options.GBP,
			},
		})
		// The subnet's own .0 address is the source of what the host itself sends to pods elsewhere; no route comes with it.
		s.Add(netstate.Addr{Dev: f.dev, Prefix: host(f.subnet)})
		if f.v6 {
			s.Add(netstate.Sysctl{Name: "net/ipv6/conf/" + f.dev + "/accept_ra", Value: "0"})
			continue
		}
		// Loose: while a peer changes between tunnel and direct route, its packets come the other way than ours go.
		s.Add(netstate.Sysctl{Name: "net/ipv4/conf/" + f.dev + "/rp_filter", Value: "2"})
	}
	return s
}

// Peer returns the path to one peer, which must be one of those that overlay.Peers returns.
func (Backend) Peer(self overlay.Self, l api.Lease) netstate.State {
	return netstate.New(appendPeer(nil, self, families(self), l)...)
}

func appendPeer(objects []netstate.Object, self overlay.Self, fs []familyPlan, l api.Lease) []netstate.Object {
	if l.BackendType != Name || l.VNI != cmp.Or(self.Options.VNI, DefaultVNI) {
		return objects
	}
	for _, f := range fs {
		subnet, public, mac := l.Subnet, l.PublicIP, l.VTEPMAC
		if f.v6 {
			subnet, public, mac = l.SubnetV6, l.PublicIPv6, l.VTEPMACv6
		}
		switch {
		case !subnet.IsValid() || !usable(public):
		case self.Options.DirectRouting && self.OnLink(public):
			objects = append(objects, netstate.Route{Dst: subnet, Via: public, Dev: self.Dev, MTU: self.RouteMTU(subnet, public, 0)})
		case mac != "":
			vtep := subnet.Masked().Addr()
			objects = append(objects,
				netstate.Neigh{Dev: f.dev, IP: vtep, MAC: mac},
				netstate.FDB{Dev: f.dev, MAC: mac, Dst: public},
				netstate.Route{Dst: subnet, Via: vtep, Dev: f.dev, MTU: self.RouteMTU(subnet, public, f.overhead), Onlink: true})
		}
	}
	return objects
}

// Unreached says why a peer's lease, good in itself, gets no path or only one of its families does; "" when it gets all.
func (Backend) Unreached(self overlay.Self, l api.Lease) string {
	for _, f := range families(self) {
		subnet, public, mac, field := l.Subnet, l.PublicIP, l.VTEPMAC, ""
		if f.v6 {
			subnet, public, mac, field = l.SubnetV6, l.PublicIPv6, l.VTEPMACv6, "v6"
		}
		switch {
		case !subnet.IsValid():
		case !usable(public):
			return fmt.Sprintf("PublicIP%s: missing, packets for %s have no host to go to: give that host an address of the family", field, subnet)
		case mac == "" && !(self.Options.DirectRouting && self.OnLink(public)):
			return fmt.Sprintf("Backend%sData.VtepMAC: missing, packets for %s have no device to go to: restart that host's agent",
				strings.ToUpper(field), subnet)
		}
	}
	return ""
}

// usable reports whether packets can be sent to the address: flannel writes 0.0.0.0 where a node has no IPv4 address.
func usable(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// familyPlan is what differs between IPv4 and IPv6.
type familyPlan struct {
	v6       bool
	dev, mac string
	subnet   netip.Prefix
	local    netip.Addr
	overhead int
}

// families returns the node's families: those it has a subnet for.
func families(self overlay.Self) []familyPlan {
	var out []familyPlan
	if self.Lease.Subnet.IsValid() {
		out = append(out, familyPlan{
			dev: Device(self.Options, false), mac: self.Lease.VTEPMAC, subnet: self.Lease.Subnet, local: self.Addr, overhead: OverheadV4,
		})
	}
	if self.Lease.SubnetV6.IsValid() {
		out = append(out, familyPlan{
			v6: true, dev: Device(self.Options, true), mac: self.Lease.VTEPMACv6, subnet: self.Lease.SubnetV6, local: self.AddrV6,
			overhead: OverheadV6,
		})
	}
	return out
}

func host(p netip.Prefix) netip.Prefix {
	a := p.Masked().Addr()
	return netip.PrefixFrom(a, a.BitLen())
}
