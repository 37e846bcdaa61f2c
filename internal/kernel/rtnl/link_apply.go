package rtnl

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// link does an op on a link; later are the ops that follow.
func (a *applier) link(op netstate.Op, later []netstate.Op) error {
	if err := a.alive(); err != nil {
		return err
	}
	want, ok := op.Object.(netstate.Link)
	if !ok {
		return ErrKind
	}
	switch op.Verb {
	case netstate.Add:
		return a.addLink(want)
	case netstate.Set:
		old, ok := op.Old.(netstate.Link)
		if !ok {
			return errors.New("change of a link without what was found")
		}
		return a.setLink(want, old)
	}
	if !want.Owned() && !replaced(want, later) {
		return ErrOthers
	}
	index, err := a.index(want.Name)
	if err != nil {
		return err
	}
	delete(a.indexes, want.Name)
	b := linkMessage(unix.RTM_DELLINK, 0, index, 0, 0)
	b.End()
	return a.one(b)
}

// replaced reports whether a link that does not bear our mark may go: only as a VXLAN device or veth that one of ours with the same
// type and name follows, as what flannel left with other parameters.
func replaced(l netstate.Link, later []netstate.Op) bool {
	if l.Type != netstate.TypeVXLAN && l.Type != netstate.TypeVeth {
		return false
	}
	for _, op := range later {
		if n, ok := op.Object.(netstate.Link); ok && op.Verb == netstate.Add && n.Name == l.Name {
			return n.Type == l.Type
		}
	}
	return false
}

// linkMessage begins a link request.
func linkMessage(typ, flags uint16, index int, set, change uint32) *wire.Buffer {
	header := make([]byte, unix.SizeofIfInfomsg)
	wire.PutU32(header[4:], uint32(index))
	wire.PutU32(header[8:], set)
	wire.PutU32(header[12:], change)
	b := &wire.Buffer{}
	b.Begin(typ, flags, header)
	return b
}

// one sends a buffer with one message.
func (a *applier) one(b *wire.Buffer) error {
	errs, err := a.h.conn.Batch(b)
	if err != nil {
		a.broken = err
		return err
	}
	return errs[0]
}

// addLink makes the link and then gives it what the kernel does not take at creation. If that fails, the link goes again.
func (a *applier) addLink(l netstate.Link) error {
	b := linkMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, 0, 0)
	b.Text(unix.IFLA_IFNAME, l.Name)
	encodeBasics(b, l)
	done, err := a.encodeInfo(b, l)
	if err != nil {
		return err
	}
	defer done()
	b.End()
	if err := a.one(b); err != nil {
		return err
	}
	if err := a.setLink(l, netstate.Link{Name: l.Name, MTU: l.MTU, MAC: l.MAC}); err != nil {
		index, ierr := a.index(l.Name)
		if ierr != nil {
			return err
		}
		undo := linkMessage(unix.RTM_DELLINK, 0, index, 0, 0)
		undo.End()
		delete(a.indexes, l.Name)
		return errors.Join(err, a.one(undo))
	}
	return nil
}

func encodeBasics(b *wire.Buffer, l netstate.Link) {
	if l.MTU != 0 {
		b.U32(unix.IFLA_MTU, uint32(l.MTU))
	}
	if mac, ok := wire.ParseMAC(l.MAC); ok {
		b.Attr(unix.IFLA_ADDRESS, mac[:]...)
	}
}

// encodeInfo adds the type and what is fixed with it. done must be called after sending.
func (a *applier) encodeInfo(b *wire.Buffer, l netstate.Link) (done func(), err error) {
	done = func() {}
	var data func()
	switch l.Type {
	case netstate.TypeVXLAN:
		lower := 0
		if l.VXLAN.Dev != "" {
			if lower, err = a.index(l.VXLAN.Dev); err != nil {
				return nil, fmt.Errorf("underlying %w", err)
			}
		}
		data = func() { encodeVXLAN(b, l.VXLAN, lower) }
	case netstate.TypeVeth:
		if l.Peer.Name == "" {
			return nil, errors.New("this end of a veth pair is made with the other one")
		}
		var fd *os.File
		if l.Peer.Netns != "" {
			if fd, err = os.Open(l.Peer.Netns); err != nil {
				return nil, fmt.Errorf("open peer's network namespace: %w", err)
			}
			done = func() { _ = fd.Close() }
		}
		data = func() { encodePeer(b, l, fd) }
	case netstate.TypeBridge, netstate.TypeDummy, netstate.TypeWireGuard:
	default:
		return nil, fmt.Errorf("links of type %q are not made through rtnetlink", l.Type)
	}
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.Text(unix.IFLA_INFO_KIND, string(l.Type))
		if data != nil {
			b.Nest(unix.IFLA_INFO_DATA, data)
		}
	})
	return done, nil
}

func encodePeer(b *wire.Buffer, l netstate.Link, fd *os.File) {
	b.Nest(vethInfoPeer, func() {
		b.Raw(make([]byte, unix.SizeofIfInfomsg))
		b.Text(unix.IFLA_IFNAME, l.Peer.Name)
		encodeBasics(b, netstate.Link{MTU: l.MTU, MAC: l.Peer.MAC})
		if fd != nil {
			b.U32(unix.IFLA_NET_NS_FD, uint32(fd.Fd()))
		}
	})
}

func flag(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

func encodeVXLAN(b *wire.Buffer, v netstate.VXLAN, lower int) {
	encodePath(b, v, lower)
	b.BE16(unix.IFLA_VXLAN_PORT, v.Port)
	b.U8(unix.IFLA_VXLAN_PROXY, flag(v.Proxy))
	b.U8(unix.IFLA_VXLAN_UDP_CSUM, 1)
	if v.GBP {
		b.Attr(unix.IFLA_VXLAN_GBP)
	}
}

// encodePath adds what a device can change, and its VNI.
func encodePath(b *wire.Buffer, v netstate.VXLAN, lower int) {
	b.U32(unix.IFLA_VXLAN_ID, v.VNI)
	switch {
	case v.Local.Is4():
		b.Addr(unix.IFLA_VXLAN_LOCAL, v.Local)
	case v.Local.IsValid():
		b.Addr(unix.IFLA_VXLAN_LOCAL6, v.Local)
	}
	if lower != 0 {
		b.U32(unix.IFLA_VXLAN_LINK, uint32(lower))
	}
	b.U8(unix.IFLA_VXLAN_LEARNING, flag(v.Learning))
}

// setLink changes old to l.
func (a *applier) setLink(l, old netstate.Link) error {
	index, err := a.index(l.Name)
	if err != nil {
		return err
	}
	// The underlying device comes first: the MTU may be one that only the new one allows.
	if err := a.setVXLAN(index, l, old); err != nil {
		return err
	}
	b := linkMessage(unix.RTM_SETLINK, 0, index, 0, 0)
	changed := netstate.Link{}
	if l.MTU != old.MTU {
		changed.MTU = l.MTU
	}
	if l.MAC != old.MAC {
		changed.MAC = l.MAC
	}
	encodeBasics(b, changed)
	if l.Alias != old.Alias {
		b.Attr(unix.IFLA_IFALIAS, []byte(l.Alias)...)
	}
	if l.Master != old.Master {
		master := 0
		if l.Master != "" {
			if master, err = a.index(l.Master); err != nil {
				return fmt.Errorf("master %w", err)
			}
		}
		b.U32(unix.IFLA_MASTER, uint32(master))
		old.Port = netstate.Port{} // as every new port is
	}
	b.End()
	if err := a.one(b); err != nil {
		return err
	}
	return a.setPort(index, l, old)
}

// setPort changes what the link is as a bridge's port, and whether it is up.
func (a *applier) setPort(index int, l, old netstate.Link) error {
	if l.Master != "" && l.Port != old.Port {
		if err := a.one(portMessage(index, l.Port)); err != nil {
			return fmt.Errorf("set bridge port: %w", err)
		}
	}
	if l.Up == old.Up {
		return nil
	}
	state := uint32(0)
	if l.Up {
		state = unix.IFF_UP
	}
	b := linkMessage(unix.RTM_SETLINK, 0, index, state, unix.IFF_UP)
	b.End()
	return a.one(b)
}

// setVXLAN changes what can be changed of a device that carries packets. The kernel refuses to hear of the rest, even that it stays.
func (a *applier) setVXLAN(index int, l, old netstate.Link) error {
	if l.Type != netstate.TypeVXLAN || old.Type != netstate.TypeVXLAN || l.VXLAN == old.VXLAN {
		return nil
	}
	lower, err := 0, error(nil)
	if l.VXLAN.Dev != "" {
		if lower, err = a.index(l.VXLAN.Dev); err != nil {
			return fmt.Errorf("underlying %w", err)
		}
	}
	b := linkMessage(unix.RTM_NEWLINK, 0, index, 0, 0)
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.Text(unix.IFLA_INFO_KIND, string(l.Type))
		b.Nest(unix.IFLA_INFO_DATA, func() { encodePath(b, l.VXLAN, lower) })
	})
	b.End()
	if err := a.one(b); err != nil {
		return fmt.Errorf("change VXLAN: %w", err)
	}
	return nil
}

// portMessage sets what a link is as a port of a bridge.
func portMessage(index int, p netstate.Port) *wire.Buffer {
	b := linkMessage(unix.RTM_NEWLINK, 0, index, 0, 0)
	b.Nest(unix.IFLA_LINKINFO, func() {
		b.Text(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		b.Nest(unix.IFLA_INFO_SLAVE_DATA, func() {
			for _, f := range []struct {
				attr uint16
				on   bool
			}{
				{unix.IFLA_BRPORT_MODE, p.Hairpin},
				{unix.IFLA_BRPORT_NEIGH_SUPPRESS, p.NeighSuppress},
				{unix.IFLA_BRPORT_LEARNING, !p.NoLearning},
				{unix.IFLA_BRPORT_ISOLATED, p.Isolated},
			} {
				v := uint8(0)
				if f.on {
					v = 1
				}
				b.U8(f.attr, v)
			}
		})
	})
	b.End()
	return b
}
