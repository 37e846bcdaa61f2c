// Package probe reads the facts of a host that planners need and that weft does not make: the underlay interface, its
// addresses and MTU, the routes that are already there, and what the kernel can do.
//
// Floor 3, edges.
package probe

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
)

// ErrNoUnderlay says that no interface fits as the underlay.
var ErrNoUnderlay = errors.New("no underlay interface")

// Underlay is the interface over which the overlay reaches the other hosts.
type Underlay struct {
	Dev       string
	MTU       int          // bytes
	Addrs     []netip.Addr // global first, link-local after; both families
	Connected []netip.Prefix
	Gateway   netip.Addr // of the default route that leaves by Dev, zero: none
	MAC       string
}

// Addr returns the first address of the family, or the zero Addr.
func (u Underlay) Addr(v6 bool) netip.Addr {
	for _, a := range u.Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// Find describes the interface that the choice leads to. Errors wrap ErrNoUnderlay and name what was looked at and why it was not taken.
func Find(c Choice) (Underlay, error) {
	devices, err := readDevices()
	if err != nil {
		return Underlay{}, err
	}
	d, at, err := c.choose(devices, kernelRoutes{})
	if err != nil {
		return Underlay{}, err
	}
	u := Underlay{Dev: d.name, MTU: d.mtu, MAC: d.mac}
	addrs := d.usable()
	first := append(slices.Clone(c.Prefer), at)
	slices.SortStableFunc(addrs, func(a, b address) int { return order(a, first) - order(b, first) })
	for _, a := range addrs {
		u.Addrs = append(u.Addrs, a.Addr())
		if !a.IsSingleIP() && !slices.Contains(u.Connected, a.Masked()) {
			u.Connected = append(u.Connected, a.Masked())
		}
	}
	u.Gateway = gatewayOf(d.index)
	return u, nil
}

// order puts the addresses asked for before the others.
func order(a address, first []netip.Addr) int {
	if slices.Contains(first, a.Addr()) {
		return 0
	}
	return 1
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones), true
}

// Features says what the kernel has.
type Features struct {
	BridgeNetfilter bool // br_netfilter: iptables sees bridged packets
	IPv6            bool
}

// Kernel probes the features.
func Kernel() Features {
	return Features{BridgeNetfilter: exists("/proc/sys/net/bridge/bridge-nf-call-iptables"), IPv6: exists("/proc/sys/net/ipv6/conf/all")}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
