package netstate

import (
	"fmt"
	"net/netip"
	"strings"
)

// RouteProtocol is the protocol number (rtm_protocol) of every route weft owns: the mark by which it knows them again.
const RouteProtocol = 119

// Addr is an address of a link (ip-address(8)).
type Addr struct {
	Dev    string
	Prefix netip.Prefix // the address with its prefix length, not masked
}

// Kind returns KindAddr.
func (a Addr) Kind() Kind { return KindAddr }

// Key is the device and the address.
func (a Addr) Key() string { return a.Dev + " " + a.Prefix.String() }

// On is the device.
func (a Addr) On() string { return a.Dev }

// String is what follows "ip addr add".
func (a Addr) String() string { return fmt.Sprintf("%s dev %s", a.Prefix, a.Dev) }

// Neigh is a permanent neighbour entry (ip-neighbour(8)).
type Neigh struct {
	Dev string
	IP  netip.Addr
	MAC string
}

// Kind returns KindNeigh.
func (n Neigh) Kind() Kind { return KindNeigh }

// Key is the device and the address.
func (n Neigh) Key() string { return n.Dev + " " + n.IP.String() }

// On is the device.
func (n Neigh) On() string { return n.Dev }

// String is what follows "ip neigh replace".
func (n Neigh) String() string {
	return fmt.Sprintf("%s lladdr %s dev %s nud permanent", n.IP, n.MAC, n.Dev)
}

// FDB is a permanent forwarding entry of a VXLAN device (bridge(8), "fdb ... self permanent").
type FDB struct {
	Dev string
	MAC string
	Dst netip.Addr // the remote VTEP's underlay address
}

// Kind returns KindFDB.
func (f FDB) Kind() Kind { return KindFDB }

// Key is the device, the MAC and the destination: a VXLAN device may hold several destinations of one MAC.
func (f FDB) Key() string { return f.Dev + " " + f.MAC + " " + f.Dst.String() }

// On is the device.
func (f FDB) On() string { return f.Dev }

// String is what follows "bridge fdb append".
func (f FDB) String() string {
	return fmt.Sprintf("%s dev %s dst %s self permanent", f.MAC, f.Dev, f.Dst)
}

// Route is a route of a table (ip-route(8)).
type Route struct {
	Type   string // "" is unicast; "blackhole", "unreachable", "local", ...
	Dst    netip.Prefix
	Via    netip.Addr
	Dev    string
	Src    netip.Addr // preferred source
	Table  int        // 0 is main
	Metric int
	MTU    int    // route MTU in bytes, 0: the device's
	Scope  string // "" is the kernel's default: global with a gateway, link without
	Onlink bool
}

// Kind returns KindRoute.
func (r Route) Kind() Kind { return KindRoute }

// Key is table, destination and metric: what the kernel holds once.
func (r Route) Key() string { return fmt.Sprintf("%d %s %d", r.Table, r.Dst, r.Metric) }

// On is the device the route leaves by.
func (r Route) On() string { return r.Dev }

// String is what follows "ip route replace".
func (r Route) String() string {
	var b strings.Builder
	if r.Type != "" {
		b.WriteString(r.Type + " ")
	}
	b.WriteString(r.Dst.String())
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Dev != "" {
		fmt.Fprintf(&b, " dev %s", r.Dev)
	}
	if r.Table != 0 {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	fmt.Fprintf(&b, " proto %d", RouteProtocol)
	if r.Scope != "" {
		fmt.Fprintf(&b, " scope %s", r.Scope)
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	if r.Onlink {
		b.WriteString(" onlink")
	}
	return b.String()
}

// Sysctl is a kernel parameter under /proc/sys (sysctl(8)).
type Sysctl struct {
	Name  string // with slashes: "net/ipv4/ip_forward"; device names may hold dots
	Value string
}

// Kind returns KindSysctl.
func (s Sysctl) Kind() Kind { return KindSysctl }

// Key is the name.
func (s Sysctl) Key() string { return s.Name }

// On returns "".
func (s Sysctl) On() string { return "" }

// String is what follows "sysctl -w".
func (s Sysctl) String() string { return s.Name + "=" + s.Value }

// Listener is a port on which the relay accepts a service's connections and passes them to its endpoints in turn.
type Listener struct {
	Service  string // "namespace/name:port"
	Protocol string // "TCP" or "UDP"
	Addr     netip.AddrPort
	// Endpoints are tried in turn, round robin.
	Endpoints []netip.AddrPort
	// Affinity is the session affinity timeout in seconds, 0: none.
	Affinity int
}

// Kind returns KindListener.
func (l Listener) Kind() Kind { return KindListener }

// Key is the service port and protocol: a listener keeps its port when its endpoints change.
func (l Listener) Key() string { return l.Service + " " + l.Protocol }

// On returns "".
func (l Listener) On() string { return "" }

// String is one line: protocol, address, service, endpoints.
func (l Listener) String() string {
	eps := make([]string, len(l.Endpoints))
	for i, e := range l.Endpoints {
		eps[i] = e.String()
	}
	s := fmt.Sprintf("%s %s service %s endpoints %s", l.Protocol, l.Addr, l.Service, strings.Join(eps, ","))
	if l.Affinity > 0 {
		s += fmt.Sprintf(" affinity %d", l.Affinity)
	}
	return s
}
