package rtnl

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

func familyOf(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// encode adds the request for an op on anything but a link. index is that of the object's device.
//
// Adding fails where something is that Read did not see, so nothing of others is overwritten unseen, but for neighbour and FDB entries:
// what the kernel learned by itself in their place gives way.
func encode(b *wire.Buffer, op netstate.Op, index int) {
	typ := func(add, del uint16) uint16 {
		if op.Verb == netstate.Del {
			return del
		}
		return add
	}
	flags := map[netstate.Verb]uint16{
		netstate.Add: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		netstate.Set: unix.NLM_F_CREATE | unix.NLM_F_REPLACE,
	}[op.Verb]
	upsert := uint16(unix.NLM_F_CREATE | unix.NLM_F_REPLACE)
	if op.Verb == netstate.Del {
		upsert = 0
	}
	switch o := op.Object.(type) {
	case netstate.Addr:
		encodeAddr(b, typ(unix.RTM_NEWADDR, unix.RTM_DELADDR), flags, o, index)
	case netstate.Neigh:
		encodeNeigh(b, typ(unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH), upsert, o, index)
	case netstate.FDB:
		if o.Group() && op.Verb != netstate.Del {
			upsert = unix.NLM_F_CREATE | unix.NLM_F_APPEND
		}
		encodeFDB(b, typ(unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH), upsert, o, index)
	case netstate.Route:
		encodeRoute(b, typ(unix.RTM_NEWROUTE, unix.RTM_DELROUTE), flags, o, index)
	}
}

func encodeAddr(b *wire.Buffer, typ, flags uint16, a netstate.Addr, index int) {
	ip := a.Prefix.Addr()
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0], header[1] = familyOf(ip), byte(a.Prefix.Bits())
	if ip.Is6() {
		header[2] = unix.IFA_F_NODAD
	}
	if ip.IsLinkLocalUnicast() {
		header[3] = unix.RT_SCOPE_LINK
	}
	wire.PutU32(header[4:], uint32(index))
	b.Begin(typ, flags, header)
	b.Addr(unix.IFA_LOCAL, ip)
	b.Addr(unix.IFA_ADDRESS, ip)
	b.End()
}

func neighHeader(family byte, index int, flags byte) []byte {
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = family
	wire.PutU32(header[4:], uint32(index))
	wire.PutU16(header[8:], unix.NUD_PERMANENT)
	header[10] = flags
	return header
}

func encodeNeigh(b *wire.Buffer, typ, flags uint16, n netstate.Neigh, index int) {
	b.Begin(typ, flags, neighHeader(familyOf(n.IP), index, 0))
	b.Addr(unix.NDA_DST, n.IP)
	if mac, ok := wire.ParseMAC(n.MAC); ok {
		b.Attr(unix.NDA_LLADDR, mac[:]...)
	}
	b.End()
}

func encodeFDB(b *wire.Buffer, typ, flags uint16, f netstate.FDB, index int) {
	b.Begin(typ, flags, neighHeader(unix.AF_BRIDGE, index, unix.NTF_SELF))
	if mac, ok := wire.ParseMAC(f.MAC); ok {
		b.Attr(unix.NDA_LLADDR, mac[:]...)
	}
	b.Addr(unix.NDA_DST, f.Dst)
	b.End()
}
