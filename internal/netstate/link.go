package netstate

import (
	"fmt"
	"net/netip"
	"strconv"
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

	TypeWireGuard LinkType = "wireguard"
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
	Port   Port   // how it behaves as a port of Master
	Alias  string // AliasPrefix and what it is for
	Up     bool
	Peer   Peer  // veth only
	VXLAN  VXLAN // vxlan only
}

// Port is what only a port of a bridge has (ip-link(8), "type bridge_slave").
type Port struct {
	Hairpin       bool // a frame may go back out of the port it came from: a pod reaches itself through its service
	NeighSuppress bool // ARP and neighbour solicitations for known neighbours are answered by the bridge and not flooded
	NoLearning    bool // source addresses are not learned
	Isolated      bool // no frames to other isolated ports
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
	Proxy    bool // ARP and neighbour solicitations are answered from the device's neighbour entries
}

// Kind returns KindLink.
func (l Link) Kind() Kind { return KindLink }

// Key is the link's name.
func (l Link) Key() string { return l.Name }

// On returns "": a link lives on no other (a VXLAN device outlives a flap of its underlying device).
func (l Link) On() string { return "" }

// Owned reports whether the link bears our mark.
func (l Link) Owned() bool { return strings.HasPrefix(l.Alias, AliasPrefix) }

// MustRecreate reports whether the kernel can't change have into l: type, VXLAN's identity and veth peer are fixed at creation.
func (l Link) MustRecreate(have Object) bool {
	h, ok := have.(Link)
	return ok && (h.Type != l.Type || !l.VXLAN.Reaches(h.VXLAN) || h.Peer != l.Peer)
}

// Reaches reports whether the kernel can change have into v while the device is up. It can what packets leave with: source address within
// its family, underlying device, learning.
func (v VXLAN) Reaches(have VXLAN) bool {
	if v.Local.IsValid() != have.Local.IsValid() || v.Local.Is4() != have.Local.Is4() || (v.Dev == "") != (have.Dev == "") {
		return false
	}
	have.Local, have.Dev, have.Learning = v.Local, v.Dev, v.Learning
	return v == have
}

// vxlanChange is the words that give a VXLAN device another configuration, "" when it has it.
func (l Link) vxlanChange(old Link) string {
	if l.Type != TypeVXLAN || old.Type != TypeVXLAN || l.VXLAN == old.VXLAN {
		return ""
	}
	return l.VXLAN.change()
}

// change is the words that change a device with another configuration to v: what it can't change may not even be said.
func (v VXLAN) change() string {
	words := fmt.Sprintf(" type vxlan id %d", v.VNI)
	if v.Local.IsValid() {
		words += " local " + v.Local.String()
	}
	words = string(appendWord([]byte(words), " dev ", v.Dev))
	if v.Learning {
		return words + " learning"
	}
	return words + " nolearning"
}

// String is what follows "ip link add": name, MTU, address, master, port flags, alias, state, then the type and its parameters.
// The kernel takes only part of it at creation; Op.Commands has what really makes the link.
func (l Link) String() string {
	b := make([]byte, 0, 128)
	b = append(b, l.Name...)
	b = append(b, " mtu "...)
	b = strconv.AppendInt(b, int64(l.MTU), 10)
	b = appendWord(b, " address ", l.MAC)
	b = appendWord(b, " master ", l.Master)
	b = append(b, l.Port.text()...)
	if l.Alias != "" {
		b = append(b, " alias "...)
		b = append(b, quote(l.Alias)...)
	}
	if l.Up {
		b = append(b, " up"...)
	} else {
		b = append(b, " down"...)
	}
	b = append(b, " type "...)
	b = append(b, l.typeText()...)
	return string(b)
}

func appendWord(b []byte, word, value string) []byte {
	if value == "" {
		return b
	}
	return append(append(b, word...), value...)
}

func (l Link) typeText() string {
	switch l.Type {
	case TypeVXLAN:
		return "vxlan" + l.VXLAN.text()
	case TypeVeth:
		if l.Peer == (Peer{}) {
			return "veth"
		}
		t := appendWord([]byte("veth peer name "+l.Peer.Name), " address ", l.Peer.MAC)
		return string(appendWord(t, " netns ", l.Peer.Netns))
	}
	return string(l.Type)
}

func (p Port) text() string {
	t := ""
	if p.Hairpin {
		t += " hairpin on"
	}
	if p.NeighSuppress {
		t += " neigh_suppress on"
	}
	if p.NoLearning {
		t += " learning off"
	}
	if p.Isolated {
		t += " isolated on"
	}
	return t
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
	if v.Proxy {
		b.WriteString(" proxy")
	}
	if v.GBP {
		b.WriteString(" gbp")
	}
	return b.String()
}
