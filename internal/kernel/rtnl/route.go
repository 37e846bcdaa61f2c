package rtnl

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// typeWords and scopeWords are the words of rtm_type and rtm_scope (rtnetlink(7)); unicast has none.
var (
	typeWords = map[uint8]string{
		unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast",
		unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
	}
	scopeWords = map[uint8]string{
		unix.RT_SCOPE_UNIVERSE: "global", unix.RT_SCOPE_SITE: "site", unix.RT_SCOPE_LINK: "link", unix.RT_SCOPE_HOST: "host",
		unix.RT_SCOPE_NOWHERE: "nowhere",
	}
)

// defaultScope is the scope that ip-route(8) and we give a route that names none.
func defaultScope(r netstate.Route) uint8 {
	switch {
	case r.Dst.Addr().Is6():
		return unix.RT_SCOPE_UNIVERSE
	case r.Type == "local":
		return unix.RT_SCOPE_HOST
	case r.Type == "" && !r.Via.IsValid(), r.Type == "broadcast", r.Type == "multicast", r.Type == "anycast":
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// rejects reports whether the route type has no next hop; the kernel shows such IPv6 routes on lo.
func rejects(typ string) bool {
	return typ == "blackhole" || typ == "unreachable" || typ == "prohibit" || typ == "throw"
}

// decodeRoute reads an RTM_NEWROUTE or RTM_DELROUTE.
func decodeRoute(m wire.Message, name names) (r netstate.Route, ok bool) {
	if len(m.Data) < unix.SizeofRtMsg || wire.U32(m.Data[8:])&unix.RTM_F_CLONED != 0 {
		return r, false
	}
	zero, bits := netip.IPv4Unspecified(), int(m.Data[1])
	if m.Data[0] == unix.AF_INET6 {
		zero = netip.IPv6Unspecified()
	} else if m.Data[0] != unix.AF_INET {
		return r, false
	}
	r = netstate.Route{Dst: netip.PrefixFrom(zero, bits), Table: int(m.Data[4]), Proto: int(m.Data[5]), Type: typeWords[m.Data[7]]}
	for typ, v := range wire.Attrs(m.Data[unix.SizeofRtMsg:]) {
		decodeRouteAttr(&r, typ, v, name)
	}
	if r.Table == unix.RT_TABLE_MAIN {
		r.Table = 0
	}
	switch r.Proto {
	case netstate.RouteProtocol:
		r.Proto = 0
	case unix.RTPROT_UNSPEC: // somebody who did not say; our 0 means us
		r.Proto = unix.RTPROT_BOOT
	}
	if zero.Is6() && r.Metric == netstate.MetricV6 {
		r.Metric = 0
	}
	if rejects(r.Type) {
		r.Dev = ""
	}
	r.Onlink = wire.U32(m.Data[8:])&unix.RTNH_F_ONLINK != 0
	if scope := m.Data[6]; scope != defaultScope(r) {
		r.Scope = scopeWords[scope]
	}
	return r, r.Dst.IsValid()
}

func decodeRouteAttr(r *netstate.Route, typ uint16, v []byte, name names) {
	switch typ {
	case unix.RTA_DST:
		r.Dst = netip.PrefixFrom(wire.Addr(v), r.Dst.Bits())
	case unix.RTA_TABLE:
		r.Table = int(wire.U32(v))
	case unix.RTA_GATEWAY:
		r.Via = wire.Addr(v)
	case unix.RTA_VIA: // struct rtvia: the family, then the address
		if len(v) > 2 {
			r.Via = wire.Addr(v[2:])
		}
	case unix.RTA_OIF:
		r.Dev, _ = name(int(wire.U32(v)))
	case unix.RTA_PREFSRC:
		r.Src = wire.Addr(v)
	case unix.RTA_PRIORITY:
		r.Metric = int(wire.U32(v))
	case unix.RTA_METRICS:
		for metric, x := range wire.Attrs(v) {
			if metric == unix.RTAX_MTU {
				r.MTU = int(wire.U32(x))
			}
		}
	}
}

// encodeRoute adds the request of the type (RTM_NEWROUTE or RTM_DELROUTE) for the route. index is that of its device, 0 without one.
func encodeRoute(b *wire.Buffer, typ, flags uint16, r netstate.Route, index int) {
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1] = unix.AF_INET, byte(r.Dst.Bits())
	if r.Dst.Addr().Is6() {
		header[0] = unix.AF_INET6
	}
	header[4] = unix.RT_TABLE_UNSPEC // the attribute holds what does not fit in a byte
	if r.Table == 0 {
		header[4] = unix.RT_TABLE_MAIN
	}
	header[5] = netstate.RouteProtocol
	if r.Proto != 0 {
		header[5] = byte(r.Proto)
	}
	header[6] = defaultScope(r)
	for code, word := range scopeWords {
		if r.Scope == word {
			header[6] = code
		}
	}
	header[7] = unix.RTN_UNICAST
	for code, word := range typeWords {
		if r.Type == word {
			header[7] = code
		}
	}
	if r.Onlink {
		wire.PutU32(header[8:], unix.RTNH_F_ONLINK)
	}
	b.Begin(typ, flags, header)
	b.Addr(unix.RTA_DST, r.Dst.Addr())
	encodeRouteAttrs(b, r, index)
	b.End()
}

func encodeRouteAttrs(b *wire.Buffer, r netstate.Route, index int) {
	if r.Table != 0 {
		b.U32(unix.RTA_TABLE, uint32(r.Table))
	}
	if r.Via.IsValid() {
		if r.Via.Is6() == r.Dst.Addr().Is6() {
			b.Addr(unix.RTA_GATEWAY, r.Via)
		} else {
			b.Attr(unix.RTA_VIA, append(wire.U16Bytes(unix.AF_INET6), r.Via.AsSlice()...)...)
		}
	}
	if index != 0 {
		b.U32(unix.RTA_OIF, uint32(index))
	}
	if r.Src.IsValid() {
		b.Addr(unix.RTA_PREFSRC, r.Src)
	}
	if r.Metric != 0 {
		b.U32(unix.RTA_PRIORITY, uint32(r.Metric))
	}
	if r.MTU != 0 {
		b.Nest(unix.RTA_METRICS, func() { b.U32(unix.RTAX_MTU, uint32(r.MTU)) })
	}
}
