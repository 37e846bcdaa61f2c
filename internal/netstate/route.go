package netstate

import (
	"net/netip"
	"strconv"
)

// RouteProtocol is the protocol number (rtm_protocol) of every route weft owns: the mark by which it knows them again.
const RouteProtocol = 119

// MetricV6 is the metric that the kernel gives and shows for an IPv6 route without one, for which we write 0.
const MetricV6 = 1024

// Route is a route of a table (ip-route(8)).
type Route struct {
	Type   string // "" is unicast; "blackhole", "unreachable", "local", ...
	Dst    netip.Prefix
	Via    netip.Addr
	Dev    string
	Src    netip.Addr // preferred source
	Table  int        // 0 is main
	Metric int        // 0 is the kernel's default, for IPv6 MetricV6
	MTU    int        // route MTU in bytes, 0: the device's
	Scope  string     // "" is the default: global with a gateway or IPv6, link without a gateway, host for a local one
	Onlink bool
	// Proto is who made the route: 0 is us, RouteProtocol. Any other is somebody's route found where we want ours.
	Proto int
}

// Kind returns KindRoute.
func (r Route) Kind() Kind { return KindRoute }

// Key is table, destination and metric: what the kernel holds once.
func (r Route) Key() string {
	b := make([]byte, 0, 48)
	b = strconv.AppendInt(b, int64(r.Table), 10)
	b = append(b, ' ')
	b = r.Dst.AppendTo(b)
	b = append(b, ' ')
	return string(strconv.AppendInt(b, int64(r.Metric), 10))
}

// On is the device the route leaves by.
func (r Route) On() string { return r.Dev }

// String is what follows "ip route replace".
func (r Route) String() string {
	b := make([]byte, 0, 96)
	if r.Type != "" {
		b = append(append(b, r.Type...), ' ')
	}
	b = r.Dst.AppendTo(b)
	if r.Via.IsValid() {
		b = r.Via.AppendTo(append(b, r.viaWord()...))
	}
	b = appendWord(b, " dev ", r.Dev)
	b = appendInt(b, " table ", r.Table)
	proto := r.Proto
	if proto == 0 {
		proto = RouteProtocol
	}
	b = appendInt(b, " proto ", proto)
	b = appendWord(b, " scope ", r.Scope)
	if r.Src.IsValid() {
		b = r.Src.AppendTo(append(b, " src "...))
	}
	b = appendInt(b, " metric ", r.Metric)
	b = appendInt(b, " mtu ", r.MTU)
	if r.Onlink {
		b = append(b, " onlink"...)
	}
	return string(b)
}

// viaWord is " via ", with the family when an IPv4 route has an IPv6 gateway (RFC 5549).
func (r Route) viaWord() string {
	if r.Dst.Addr().Is4() && r.Via.Is6() {
		return " via inet6 "
	}
	return " via "
}

func appendInt(b []byte, word string, n int) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, word...), int64(n), 10)
}
