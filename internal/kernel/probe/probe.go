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
	"strings"

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

// FindUnderlay describes the interface that want names (a name or one of its addresses), or the default route's when want is
// empty. Errors wrap ErrNoUnderlay and name what was looked for and what is there.
func FindUnderlay(want string) (Underlay, error) {
	name := want
	if want == "" {
		var err error
		if name, err = defaultDevice(); err != nil {
			return Underlay{}, err
		}
	} else if ip, err := netip.ParseAddr(want); err == nil {
		if name, err = deviceOf(ip); err != nil {
			return Underlay{}, err
		}
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return Underlay{}, fmt.Errorf("%w: --iface=%s: %w (interfaces here: %s)", ErrNoUnderlay, name, err, strings.Join(names(), ", "))
	}
	u := Underlay{Dev: name, MTU: link.Attrs().MTU, MAC: link.Attrs().HardwareAddr.String()}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL) //nolint:forbidigo // facts of the host, not objects of ours
	if err != nil {
		return u, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		p, ok := prefixOf(a.IPNet)
		if !ok {
			continue
		}
		u.Addrs = append(u.Addrs, p.Addr())
		if !p.IsSingleIP() {
			u.Connected = append(u.Connected, p.Masked())
		}
	}
	u.Gateway = gatewayOf(link)
	slices.SortStableFunc(u.Addrs, func(a, b netip.Addr) int { return rank(a) - rank(b) })
	if len(u.Addrs) == 0 {
		return u, fmt.Errorf("%w: %s has no address", ErrNoUnderlay, name)
	}
	return u, nil
}

func gatewayOf(link netlink.Link) netip.Addr {
	filter := &netlink.Route{Dst: nil, Table: unix.RT_TABLE_MAIN, LinkIndex: link.Attrs().Index}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if gw, ok := netip.AddrFromSlice(r.Gw); ok {
				return gw.Unmap()
			}
		}
	}
	return netip.Addr{}
}

func rank(a netip.Addr) int {
	if a.IsLinkLocalUnicast() {
		return 1
	}
	return 0
}

func defaultDevice() (string, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: nil, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
		if err != nil {
			return "", fmt.Errorf("list default routes: %w", err)
		}
		for _, r := range routes {
			if r.LinkIndex == 0 {
				continue
			}
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				return link.Attrs().Name, nil
			}
		}
	}
	return "", fmt.Errorf("%w: there is no default route: name the interface with --iface (interfaces here: %s)", ErrNoUnderlay, strings.Join(names(), ", "))
}

func deviceOf(ip netip.Addr) (string, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if p, ok := prefixOf(n); ok && p.Addr() == ip {
					return i.Name, nil
				}
			}
		}
	}
	return "", fmt.Errorf("%w: --iface=%s: no interface has this address", ErrNoUnderlay, ip)
}

func names() []string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	out := make([]string, len(ifaces))
	for i, f := range ifaces {
		out[i] = f.Name
	}
	return out
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
