package rtnl

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// names gives the name of the link with an index.
type names func(index int) (string, bool)

// decodeAddr reads an RTM_NEWADDR or RTM_DELADDR. IPv6 addresses that come from router advertisements are no objects.
func decodeAddr(m wire.Message, name names) (a netstate.Addr, ok bool) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return a, false
	}
	bits, flags := int(m.Data[1]), uint32(m.Data[2])
	dev, ok := name(int(wire.U32(m.Data[4:])))
	if !ok {
		return a, false
	}
	var local, address netip.Addr
	for typ, v := range wire.Attrs(m.Data[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local = wire.Addr(v)
		case unix.IFA_ADDRESS:
			address = wire.Addr(v)
		case unix.IFA_FLAGS:
			flags = wire.U32(v)
		}
	}
	if !local.IsValid() {
		local = address
	}
	if !local.IsValid() || bits > local.BitLen() {
		return a, false
	}
	if local.Is6() && flags&unix.IFA_F_PERMANENT == 0 {
		return a, false
	}
	return netstate.Addr{Dev: dev, Prefix: netip.PrefixFrom(local, bits)}, true
}

// ownDoing reports whether the kernel may have made the address itself, as it does with an IPv6 link-local one for each link.
func ownDoing(a netstate.Addr) bool {
	return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast()
}

// decodeNeigh reads an RTM_NEWNEIGH or RTM_DELNEIGH as a permanent neighbour or FDB entry; others are no objects. An entry that was
// deleted is told with another state, so state says whether it counts.
func decodeNeigh(m wire.Message, name names, anyState bool) (o netstate.Object, ok bool) {
	if len(m.Data) < unix.SizeofNdMsg {
		return nil, false
	}
	family, state, flags := m.Data[0], wire.U16(m.Data[8:]), m.Data[10]
	dev, ok := name(int(int32(wire.U32(m.Data[4:]))))
	if !ok || (!anyState && state&unix.NUD_PERMANENT == 0) {
		return nil, false
	}
	dst, mac := neighAttrs(m.Data[unix.SizeofNdMsg:])
	switch {
	case family == unix.AF_BRIDGE:
		if !dst.IsValid() || mac == "" || flags&unix.NTF_SELF == 0 {
			return nil, false // an entry of the bridge itself
		}
		return netstate.FDB{Dev: dev, MAC: mac, Dst: dst}, true
	case !dst.IsValid() || flags&unix.NTF_PROXY != 0 || (mac == "" && !anyState):
		return nil, false // of a device without Ethernet header
	}
	return netstate.Neigh{Dev: dev, IP: dst, MAC: mac}, true
}

func neighAttrs(b []byte) (dst netip.Addr, mac string) {
	for typ, v := range wire.Attrs(b) {
		switch typ {
		case unix.NDA_DST:
			dst = wire.Addr(v)
		case unix.NDA_LLADDR:
			mac = wire.MAC(v)
		}
	}
	return dst, mac
}
