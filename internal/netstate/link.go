package netstate

import (
	"fmt"
	"net/netip"
	"strings"
)

// LinkType is the kernel's name of a link's driver (ip-link(8), "type").
type LinkType string

// The link types weft makes.
const (
	TypeVXLAN  LinkType = "vxlan"
	TypeBridge LinkType = "bridge"
	TypeVeth   LinkType = "veth"
	TypeDummy  LinkType = "dummy"
	TypeTUN    LinkType = "tun"
)

// AliasPrefix begins the alias (IFLA_IFALIAS) of every link weft owns.
const AliasPrefix = "weft:"

// Link is a network device. MTU is in bytes, MAC lower-case hex with colons.
type Link struct {
	Name   string
	Type   LinkType
	MTU    int
	MAC    string
	Master string // bridge it is a port of, or ""
	Alias  string // AliasPrefix and what it is for
	Up     bool
	Peer   Peer  // veth only
	VXLAN  VXLAN // vxlan only
}

// Peer is the other end of a veth pair: its name, the network namespace (a path, or "" for the same one) and its MAC.
type Peer struct {
	Name  string
	Netns string
	MAC   string
}

// VXLAN is what only a VXLAN device has (ip-link(8), "VXLAN Type Support").
type VXLAN struct {
	VNI      uint32     // 24 bits
	Local    netip.Addr // source of the outer packets
	Dev      string     // underlying device
	Port     uint16     // outer UDP destination port; 8472 is Linux's and flannel's
	Learning bool
	GBP      bool
}

// Kind returns KindLink.
func (l Link) Kind() Kind { return KindLink }

// Key is the link's name.
func (l Link) Key() string { return l.Name }

// On returns "": a link lives on no other (a VXLAN device outlives a flap of its underlying device).
func (l Link) On() string { return "" }

// MustRecreate reports whether the kernel can't change have into l: type, VXLAN parameters and veth peer are fixed at creation.
func (l Link) MustRecreate(have Object) bool {
	h, ok := have.(Link)
	return ok && (h.Type != l.Type || h.VXLAN != l.VXLAN || h.Peer != l.Peer)
}

// String is what follows "ip link add": name, MTU, address, alias, master, state, then the type and its parameters.
func (l Link) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s mtu %d", l.Name, l.MTU)
	if l.MAC != "" {
		fmt.Fprintf(&b, " address %s", l.MAC)
	}
	if l.Master != "" {
		fmt.Fprintf(&b, " master %s", l.Master)
	}
	if l.Alias != "" {
		fmt.Fprintf(&b, " alias %s", l.Alias)
	}
	if l.Up {
		b.WriteString(" up")
	} else {
		b.WriteString(" down")
	}
	b.WriteString(" type " + l.typeText())
	return b.String()
}

func (l Link) typeText() string {
	switch l.Type {
	case TypeVXLAN:
		return "vxlan" + l.VXLAN.text()
	case TypeVeth:
		t := "veth peer name " + l.Peer.Name
		if l.Peer.MAC != "" {
			t += " address " + l.Peer.MAC
		}
		if l.Peer.Netns != "" {
			t += " netns " + l.Peer.Netns
		}
		return t
	}
	return string(l.Type)
}

func (v VXLAN) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, " id %d", v.VNI)
	if v.Local.IsValid() {
		fmt.Fprintf(&b, " local %s", v.Local)
	}
	if v.Dev != "" {
		fmt.Fprintf(&b, " dev %s", v.Dev)
	}
	fmt.Fprintf(&b, " dstport %d", v.Port)
	if !v.Learning {
		b.WriteString(" nolearning")
	}
	if v.GBP {
		b.WriteString(" gbp")
	}
	return b.String()
}
