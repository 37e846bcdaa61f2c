// Package overlay plans how a node reaches the pods of the other nodes. A backend turns the leases of the network into kernel
// objects; the backends are the packages below: vxlan, hostgw, l2, udp, wireguard.
//
// Floor 2, planners: pure functions, no I/O, no clock.
package overlay

import (
	"net/netip"

	"weft/internal/api"
	"weft/internal/netstate"
)

// Self is what a backend must know of the node it plans for.
type Self struct {
	// Lease is the node's own lease: its subnets, public addresses and the MACs of its VTEP devices.
	Lease api.Lease
	// Network and NetworkV6 are the pod network's ranges; peers' subnets outside are refused. Zero: not checked.
	Network, NetworkV6 netip.Prefix
	// Dev is the underlay interface, MTU its MTU in bytes.
	Dev string
	MTU int
	// Addr and AddrV6 are the underlay interface's own addresses (behind a NAT not the public ones).
	Addr, AddrV6 netip.Addr
	// Addrs are all of the underlay interface's addresses.
	Addrs []netip.Addr
	// Connected lists the networks reachable through Dev without a gateway.
	Connected []netip.Prefix
	// Paths are the MTUs in bytes of paths narrower than MTU, by the peer's public address.
	Paths   map[netip.Addr]int
	Options Options
}

// Options are the backend's settings from the network configuration. Zero values mean the defaults named.
type Options struct {
	VNI           uint32 // vxlan: 1
	Port          uint16 // vxlan: 8472; udp: 8285
	MTU           int    // outer MTU in bytes: the underlay interface's
	GBP           bool
	Learning      bool
	DirectRouting bool // peers in a connected network are reached without tunnel
	StandIn       bool `json:",omitzero"` // vxlan: the device has another name, as one with the VNI is there; wireguard: as one with another port is
	StandInV6     bool `json:",omitzero"` // wireguard: the same of the IPv6 device

	ListenPort   uint16 `json:",omitzero"` // wireguard: 51820
	ListenPortV6 uint16 `json:",omitzero"` // wireguard: 51821, of the IPv6 device
	Keepalive    int    `json:",omitzero"` // wireguard: seconds, 0 none
	Mode         string `json:",omitzero"` // wireguard: "separate" (default), "auto", "ipv4" or "ipv6"
	Userspace    bool   `json:",omitzero"` // wireguard: the kernel has no driver, a TUN device stands in for it
}

// Backend plans one kind of overlay.
type Backend interface {
	// Name is the lease's BackendType: "vxlan", "host-gw", ...
	Name() string
	// Overhead is the bytes a packet grows by on the underlay, which pods' MTU must leave free.
	Overhead(self Self) int
	// Plan returns what this node needs to reach the peers: the union of the backend's Base(self) and Peer(self, l) for each l of
	// Peers(self, leases), by which one changed lease can be planned alone.
	Plan(self Self, leases []api.Lease) netstate.State
}

// OuterMTU is the MTU of the underlay in bytes: the one configured, else the interface's. What the interface can't carry does not count: the
// kernel would refuse it for the tunnel's device, and pods would send what never arrives.
func (s Self) OuterMTU() int {
	if s.Options.MTU > 0 && !s.TooWide() {
		return s.Options.MTU
	}
	return s.MTU
}

// TooWide reports whether the MTU configured is more than the underlay interface can carry.
func (s Self) TooWide() bool { return s.MTU > 0 && s.Options.MTU > s.MTU }

// RouteMTU is the MTU in bytes of the routes to a peer's subnet of the family, where the path to its public address is narrower than the
// underlay; else 0, the device's. A slow path to one peer so costs the others nothing: pods learn of it by ICMP from their own host.
func (s Self) RouteMTU(subnet netip.Prefix, public netip.Addr, overhead int) int {
	path, ok := s.Paths[public]
	if !ok || path >= s.OuterMTU() {
		return 0
	}
	if subnet.Addr().Is6() {
		return max(path-overhead, MinMTUv6)
	}
	return max(path-overhead, minMTU)
}

// MinMTUv6 is the least MTU in bytes that IPv6 knows (RFC 8200), and minMTU the least for IPv4 that the kernel takes without complaint
// (ip_sysctl, min_pmtu).
const (
	MinMTUv6 = 1280
	minMTU   = 552
)

// MTU is the MTU in bytes for pods under the backend.
func MTU(b Backend, self Self) int { return self.OuterMTU() - b.Overhead(self) }

// OnLink reports whether the address is reached through the underlay interface without a gateway.
func (s Self) OnLink(a netip.Addr) bool {
	for _, p := range s.Connected {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
