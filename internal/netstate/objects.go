package netstate

import (
	"net/netip"
	"strconv"
	"strings"
)

// Addr is an address of a link (ip-address(8)). IPv6 addresses are added without duplicate address detection: a lease gives
// each of ours to one host, and waiting for it would hold traffic up for a second.
type Addr struct {
	Dev    string
	Prefix netip.Prefix // the address with its prefix length, not masked
}

// Kind returns KindAddr.
func (a Addr) Kind() Kind { return KindAddr }

// Key is the device and the address: in IPv4 with its length, in IPv6 without, as the kernel tells addresses apart.
func (a Addr) Key() string {
	if a.Prefix.Addr().Is6() {
		return a.Dev + " " + a.Prefix.Addr().String()
	}
	return a.Dev + " " + a.Prefix.String()
}

// On is the device.
func (a Addr) On() string { return a.Dev }

// String is what follows "ip addr add".
func (a Addr) String() string {
	s := a.Prefix.String() + " dev " + a.Dev
	if a.Prefix.Addr().Is6() {
		s += " nodad"
	}
	return s
}

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
	return n.IP.String() + " lladdr " + n.MAC + " dev " + n.Dev + " nud permanent"
}

// FDB is a permanent forwarding entry of a VXLAN device (bridge(8), "fdb ... self permanent").
type FDB struct {
	Dev string
	MAC string
	Dst netip.Addr // the remote VTEP's underlay address
}

// Kind returns KindFDB.
func (f FDB) Kind() Kind { return KindFDB }

// Key is the device and the MAC, and for a group MAC (or the all-zero default) the destination too: the kernel holds several
// destinations of a group, but one of a single host.
func (f FDB) Key() string {
	if f.Group() {
		return f.Dev + " " + f.MAC + " " + f.Dst.String()
	}
	return f.Dev + " " + f.MAC
}

// Group reports whether frames to the MAC go to all destinations: the all-zero MAC or one with the group bit.
func (f FDB) Group() bool {
	return len(f.MAC) < 2 || f.MAC == "00:00:00:00:00:00" || strings.IndexByte("13579bdf", f.MAC[1]) >= 0
}

// On is the device.
func (f FDB) On() string { return f.Dev }

// String is what follows "bridge fdb replace", or "bridge fdb append" for a group MAC.
func (f FDB) String() string {
	return f.MAC + " dev " + f.Dev + " dst " + f.Dst.String() + " self permanent"
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

// On is the device of net/<family>/conf/<dev>/ and net/<family>/neigh/<dev>/ parameters, else "".
func (s Sysctl) On() string {
	w := strings.Split(s.Name, "/")
	if len(w) == 5 && w[0] == "net" && (w[2] == "conf" || w[2] == "neigh") && w[3] != "all" && w[3] != "default" {
		return w[3]
	}
	return ""
}

// String is what follows "sysctl -w".
func (s Sysctl) String() string { return s.Name + "=" + s.Value }

// Tunnel is where packets to a subnet go that leave by a TUN or WireGuard device, and at the same time the only subnet that packets from
// there may have their source in.
type Tunnel struct {
	Dev       string         // the TUN or WireGuard device
	Subnet    netip.Prefix   // the peer's pod subnet
	Local     netip.AddrPort // UDP address and port of this host's end; an unspecified address: any
	Remote    netip.AddrPort // the peer's underlay address and UDP port
	PeerKey   string         // WireGuard: the peer's public key, base64; "" without encryption
	Keepalive int            // WireGuard: seconds between keepalives, 0 none
}

// Kind returns KindTunnel.
func (t Tunnel) Kind() Kind { return KindTunnel }

// Key is the device and the subnet.
func (t Tunnel) Key() string { return t.Dev + " " + t.Subnet.String() }

// On is the device.
func (t Tunnel) On() string { return t.Dev }

// String is one line: subnet, device, local and remote end, key.
func (t Tunnel) String() string {
	s := t.Subnet.String() + " dev " + t.Dev
	if t.Local.IsValid() {
		s += " local " + t.Local.String()
	}
	s += " remote " + t.Remote.String()
	if t.PeerKey != "" {
		s += " peer " + t.PeerKey
	}
	if t.Keepalive > 0 {
		s += " keepalive " + strconv.Itoa(t.Keepalive)
	}
	return s
}

// Listener is a port on which the relay accepts a service's connections and passes them to its endpoints in turn.
type Listener struct {
	Service   string // "namespace/name:port"
	Protocol  string // "TCP" or "UDP"
	Addr      netip.AddrPort
	Endpoints []netip.AddrPort
	// Weights are those of the endpoints, 1 to 255; nil: all equal.
	Weights []uint8
	// Balance says how an endpoint is chosen: "" round robin, "maglev" or "least-connections".
	Balance string
	// Affinity is the session affinity timeout in seconds, 0: none.
	Affinity int
	// Drain: nothing is sent to the port any longer. None is opened, and the one that is open closes when its sessions are over.
	Drain bool
	// Fixed says that clients know the port: where another program has it there is no listener, not one on another port.
	Fixed bool
}

// Kind returns KindListener.
func (l Listener) Kind() Kind { return KindListener }

// Key is the service port and protocol: a listener keeps its port when its endpoints change.
func (l Listener) Key() string { return l.Service + " " + l.Protocol }

// On returns "".
func (l Listener) On() string { return "" }

// String is one line: protocol, address, service, endpoints with their weights ("none" when there is none), balance, affinity, "fixed".
func (l Listener) String() string {
	eps := make([]string, len(l.Endpoints))
	for i, e := range l.Endpoints {
		eps[i] = e.String()
		if i < len(l.Weights) {
			eps[i] += "*" + strconv.Itoa(int(l.Weights[i]))
		}
	}
	list := "none"
	if len(eps) > 0 {
		list = strings.Join(eps, ",")
	}
	s := l.Protocol + " " + l.Addr.String() + " service " + l.Service + " endpoints " + list
	if l.Balance != "" {
		s += " balance " + l.Balance
	}
	if l.Affinity > 0 {
		s += " affinity " + strconv.Itoa(l.Affinity)
	}
	if l.Drain {
		s += " drain"
	}
	if l.Fixed {
		s += " fixed"
	}
	return s
}
