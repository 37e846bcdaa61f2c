package datagram

import (
	"net/netip"
	"slices"

	"weft/internal/netstate"
)

// destination is where datagrams for a subnet go.
type destination struct {
	addr netip.AddrPort
	name sockaddr
}

// table is the tunnels as the relay looks them up; it never changes once made.
type table struct {
	local   netip.AddrPort
	v4, v6  netip.Addr // the device's own addresses: the source of ICMP errors
	subnets map[netip.Prefix]*destination
	lengths [2][]int                      // prefix lengths in subnets, long ones first: IPv4, IPv6
	allowed map[netip.Addr][]netip.Prefix // by underlay address of a live peer: where its packets may come from
	tunnels int
}

// newTable takes what the State says of the device.
func newTable(want netstate.State, dev string) *table {
	t := &table{subnets: map[netip.Prefix]*destination{}, allowed: map[netip.Addr][]netip.Prefix{}}
	byAddr := map[netip.AddrPort]*destination{}
	for _, o := range want.All() {
		switch o := o.(type) {
		case netstate.Addr:
			if o.Dev != dev {
				continue
			}
			if a := o.Prefix.Addr(); a.Is4() {
				t.v4 = a
			} else {
				t.v6 = a
			}
		case netstate.Tunnel:
			if o.Dev != dev {
				continue
			}
			d, ok := byAddr[o.Remote]
			if !ok {
				d = &destination{addr: o.Remote, name: newSockaddr(o.Remote)}
				byAddr[o.Remote] = d
			}
			t.add(o, d)
		}
	}
	for i := range t.lengths {
		slices.Sort(t.lengths[i])
		slices.Reverse(t.lengths[i])
	}
	return t
}

func (t *table) add(o netstate.Tunnel, d *destination) {
	t.tunnels++
	t.local = o.Local
	t.subnets[o.Subnet] = d
	t.allowed[o.Remote.Addr()] = append(t.allowed[o.Remote.Addr()], o.Subnet)
	f := 0
	if o.Subnet.Addr().Is6() {
		f = 1
	}
	if !slices.Contains(t.lengths[f], o.Subnet.Bits()) {
		t.lengths[f] = append(t.lengths[f], o.Subnet.Bits())
	}
}

// lookup returns where packets to the address go, or nil.
func (t *table) lookup(a netip.Addr) *destination {
	f := 0
	if a.Is6() {
		f = 1
	}
	for _, bits := range t.lengths[f] {
		if p, err := a.Prefix(bits); err == nil {
			if d, ok := t.subnets[p]; ok {
				return d
			}
		}
	}
	return nil
}

// may reports whether a peer with the subnets may send a packet with the source.
func may(subnets []netip.Prefix, src netip.Addr) bool {
	for _, p := range subnets {
		if p.Contains(src) {
			return true
		}
	}
	return false
}
