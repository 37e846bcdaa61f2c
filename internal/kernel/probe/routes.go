package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/netstate"
)

// Route is a route of the host that somebody else made.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr // zero: no gateway, or several
	Dev    string     // "" when it leads nowhere (blackhole) or several ways
	Metric int        // as netstate.Route has it
}

// HostRoutes returns the routes in the main table that do not have the protocol ours and are not default routes: networks that a subnet
// of ours may not take away. Those that skip says yes to are left out.
func HostRoutes(ours int, skip func(Route) bool) ([]Route, error) {
	var out []Route
	names := map[int]string{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := listRoutes(family, netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			p, ok := prefixOf(r.Dst)
			if !ok || p.Bits() == 0 || int(r.Protocol) == ours || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() {
				continue
			}
			via, _ := netip.AddrFromSlice(r.Gw)
			o := Route{Dst: p.Masked(), Via: via.Unmap(), Dev: deviceName(names, r.LinkIndex), Metric: r.Priority}
			if family == netlink.FAMILY_V6 && o.Metric == netstate.MetricV6 {
				o.Metric = 0
			}
			if !skip(o) {
				out = append(out, o)
			}
		}
	}
	return out, nil
}

// deviceName asks for each interface once; "" when it is gone, or the route has none.
func deviceName(names map[int]string, index int) string {
	name, ok := names[index]
	if !ok && index > 0 {
		if i, err := net.InterfaceByIndex(index); err == nil {
			name = i.Name
		}
		names[index] = name
	}
	return name
}

// WatchRoutes returns a channel that receives, coalesced, when what HostRoutes looks at may have changed. It is closed when ctx ends.
// WatchRoutes must be called in the network namespace it is about.
func WatchRoutes(ctx context.Context, ours int) (<-chan struct{}, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("watch the host's routes: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	seen, out := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() {
		defer close(seen)
		defer func() {
			if stop() {
				s.Close()
			}
		}()
		for {
			msgs, _, err := s.Receive()
			hit := errors.Is(err, unix.ENOBUFS) // some were lost
			if err != nil && !hit {
				return
			}
			for _, m := range msgs {
				hit = hit || foreignRoute(m.Header, m.Data, ours)
			}
			if hit {
				poke(seen)
			}
		}
	}()
	go func() {
		defer close(out)
		for range seen {
			<-time.NewTimer(settle).C
			poke(out)
		}
	}()
	return out, nil
}

// foreignRoute leaves out our own routes, of which there are many, and tables other than main. The kernel does not tell of the routes that
// go with a link that is set down or deleted, nor of one that another took the place of: that may be ours.
func foreignRoute(header syscall.NlMsghdr, data []byte, ours int) bool {
	switch header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(data) > 5 && data[4] == unix.RT_TABLE_MAIN && // rtm_table
			(int(data[5]) != ours || header.Flags&unix.NLM_F_REPLACE != 0) // rtm_protocol
	case unix.RTM_NEWLINK:
		return len(data) >= unix.SizeofIfInfomsg && data[8]&unix.IFF_UP == 0 // ifi_flags
	}
	return header.Type == unix.RTM_DELLINK
}
