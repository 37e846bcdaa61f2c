// Package probe reads the facts of a host that planners need and that weft does not make: the underlay interface, its
// addresses and MTU, the routes that are already there, and what the kernel can do.
//
// Floor 3, edges.
package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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

// HostRoutes returns the destinations of the routes in the main table that do not have the protocol ours and are not default
// routes: networks that a subnet of ours may not overlap. Devices whose name skip says yes to are left out.
func HostRoutes(ours int, skip func(dev string) bool) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			p, ok := prefixOf(r.Dst)
			if !ok || p.Bits() == 0 || int(r.Protocol) == ours || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() {
				continue
			}
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && skip(link.Attrs().Name) {
				continue
			}
			out = append(out, p)
		}
	}
	return out, nil
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
