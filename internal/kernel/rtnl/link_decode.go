package rtnl

import (
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// link is a link as the kernel tells it: the object, and by index what the object names.
type link struct {
	netstate.Link
	index, master, lower int   // lower is a VXLAN's underlying device, a veth's peer
	peerNS               int32 // namespace ID of a veth's peer, or sameNS
	loopback             bool
}

// sameNS says that a veth's peer is in the same network namespace.
const sameNS = -1

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const skipStats = 1 << 3

// links is the table of a namespace.
type links struct {
	byName  map[string]*link
	byIndex map[int]*link
}

// dumpLinks reads all links.
func (h *Handle) dumpLinks() (links, error) {
	var b wire.Buffer
	b.Begin(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg))
	// Statistics are most of a link's message and cost the kernel most of the dump.
	b.U32(unix.IFLA_EXT_MASK, skipStats)
	b.End()
	msgs, err := h.conn.Dump(&b)
	if err != nil {
		return links{}, fmt.Errorf("read links: %w", err)
	}
	t := links{byName: make(map[string]*link, len(msgs)), byIndex: make(map[int]*link, len(msgs))}
	for _, m := range msgs {
		if l, ok := decodeLink(m); ok {
			t.byName[l.Name], t.byIndex[l.index] = &l, &l
		}
	}
	for _, l := range t.byIndex {
		t.resolve(l)
	}
	return t, nil
}

// resolve fills in the names behind a link's indexes.
func (t links) resolve(l *link) {
	if m, ok := t.byIndex[l.master]; ok {
		l.Master = m.Name
	}
	switch l.Type {
	case netstate.TypeVXLAN:
		if d, ok := t.byIndex[l.lower]; ok && l.lower != 0 {
			l.VXLAN.Dev = d.Name
		}
	case netstate.TypeVeth:
		if p, ok := t.byIndex[l.lower]; ok && l.peerNS == sameNS {
			l.Peer = netstate.Peer{Name: p.Name, MAC: p.MAC}
		}
	}
}

// decodeLink reads an RTM_NEWLINK or RTM_DELLINK.
func decodeLink(m wire.Message) (l link, ok bool) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return l, false
	}
	l.index = int(int32(wire.U32(m.Data[4:])))
	flags := wire.U32(m.Data[8:])
	l.Up, l.loopback = flags&unix.IFF_UP != 0, flags&unix.IFF_LOOPBACK != 0
	l.peerNS = sameNS
	for typ, data := range wire.Attrs(m.Data[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = wire.Text(data)
		case unix.IFLA_MTU:
			l.MTU = int(wire.U32(data))
		case unix.IFLA_ADDRESS:
			l.MAC = wire.MAC(data)
		case unix.IFLA_MASTER:
			l.master = int(wire.U32(data))
		case unix.IFLA_LINK:
			l.lower = int(wire.U32(data))
		case unix.IFLA_LINK_NETNSID:
			l.peerNS = int32(wire.U32(data))
		case unix.IFLA_IFALIAS:
			l.Alias = wire.Text(data)
		case unix.IFLA_LINKINFO:
			l.decodeInfo(data)
		}
	}
	return l, l.Name != "" && l.index > 0
}

func (l *link) decodeInfo(b []byte) {
	var data []byte
	slave := ""
	for typ, v := range wire.Attrs(b) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			l.Type = netstate.LinkType(wire.Text(v))
		case unix.IFLA_INFO_DATA:
			data = v
		case unix.IFLA_INFO_SLAVE_KIND:
			slave = wire.Text(v)
		case unix.IFLA_INFO_SLAVE_DATA:
			if slave == "bridge" {
				l.decodePort(v)
			}
		}
	}
	if l.Type == netstate.TypeVXLAN {
		l.decodeVXLAN(data)
	}
}

func (l *link) decodePort(b []byte) {
	for typ, v := range wire.Attrs(b) {
		if len(v) != 1 {
			continue
		}
		switch on := v[0] != 0; typ {
		case unix.IFLA_BRPORT_MODE:
			l.Port.Hairpin = on
		case unix.IFLA_BRPORT_NEIGH_SUPPRESS:
			l.Port.NeighSuppress = on
		case unix.IFLA_BRPORT_LEARNING:
			l.Port.NoLearning = !on
		case unix.IFLA_BRPORT_ISOLATED:
			l.Port.Isolated = on
		}
	}
}

func (l *link) decodeVXLAN(b []byte) {
	on := func(v []byte) bool { return len(v) == 1 && v[0] != 0 }
	for typ, v := range wire.Attrs(b) {
		switch typ {
		case unix.IFLA_VXLAN_ID:
			l.VXLAN.VNI = wire.U32(v)
		case unix.IFLA_VXLAN_LINK:
			l.lower = int(wire.U32(v))
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			l.VXLAN.Local = wire.Addr(v)
		case unix.IFLA_VXLAN_PORT:
			l.VXLAN.Port = wire.BE16(v)
		case unix.IFLA_VXLAN_LEARNING:
			l.VXLAN.Learning = on(v)
		case unix.IFLA_VXLAN_PROXY:
			l.VXLAN.Proxy = on(v)
		case unix.IFLA_VXLAN_GBP:
			l.VXLAN.GBP = true
		}
	}
}
