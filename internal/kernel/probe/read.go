package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTries is how often a list is read that changes while it is.
const dumpTries = 10

// whole reads a list again when the kernel says that it changed meanwhile and may lack entries (NLM_F_DUMP_INTR).
func whole[T any](dump func() ([]T, error)) (list []T, err error) {
	for range dumpTries {
		if list, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return list, err
}

// listRoutes lists the routes of a family that are like the filter. The library changes the filter it is given, so each try has its own.
func listRoutes(family int, filter netlink.Route, mask uint64) ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) {
		f := filter
		return netlink.RouteListFiltered(family, &f, mask)
	})
}

// readDevices reads all interfaces with their addresses, in the kernel's order.
func readDevices() ([]device, error) {
	links, err := whole(netlink.LinkList) //nolint:forbidigo // facts of the host, not objects of ours
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := whole(func() ([]netlink.Addr, error) {
		return netlink.AddrList(nil, netlink.FAMILY_ALL) //nolint:forbidigo // as above
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byLink := map[int][]address{}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok {
			byLink[a.LinkIndex] = append(byLink[a.LinkIndex], address{p, rankOf(p.Addr(), a.Flags)})
		}
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	out := make([]device, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		out = append(out, device{
			name: a.Name, alias: a.Alias, mac: a.HardwareAddr.String(), index: a.Index, mtu: a.MTU,
			up: a.Flags&net.FlagUp != 0, loopback: a.Flags&net.FlagLoopback != 0, master: names[a.MasterIndex], addrs: byLink[a.Index],
		})
	}
	return out, nil
}

// rankOf reads the flags of an address (rtnetlink(7), ip-address(8)).
func rankOf(a netip.Addr, flags int) rank {
	switch {
	case a.IsLoopback(), a.IsUnspecified(), flags&unix.IFA_F_DADFAILED != 0:
		return unusable
	case a.IsLinkLocalUnicast():
		return linkLocal
	case flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0:
		return tentative
	case flags&unix.IFA_F_DEPRECATED != 0:
		return deprecated
	case a.Is6() && flags&unix.IFA_F_TEMPORARY != 0:
		return temporary
	}
	return preferred
}

// kernelRoutes is the routing table of this network namespace.
type kernelRoutes struct{}

// To asks the kernel for the route.
func (kernelRoutes) To(ip netip.Addr) (string, netip.Addr, error) {
	routes, err := netlink.RouteGet(ip.AsSlice())
	if err != nil || len(routes) == 0 {
		return "", netip.Addr{}, fmt.Errorf("there is no route to it (%w)", err)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", netip.Addr{}, fmt.Errorf("the route leads to no interface: %w", err)
	}
	src, _ := netip.AddrFromSlice(routes[0].Src)
	return link.Attrs().Name, src.Unmap(), nil
}

// Defaults lists the devices of the default routes of the main table.
func (kernelRoutes) Defaults() ([]string, error) {
	var out []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := listRoutes(family, netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list default routes: %w", err)
		}
		for _, r := range routes {
			hops := []int{r.LinkIndex}
			for _, h := range r.MultiPath {
				hops = append(hops, h.LinkIndex)
			}
			for _, i := range hops {
				if link, err := netlink.LinkByIndex(i); err == nil {
					out = append(out, link.Attrs().Name)
				}
			}
		}
	}
	return out, nil
}

// gatewayOf is the gateway of the default route that leaves by the device, the zero Addr when there is none.
func gatewayOf(index int) netip.Addr {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		filter := netlink.Route{Table: unix.RT_TABLE_MAIN, LinkIndex: index}
		routes, err := listRoutes(family, filter, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
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
