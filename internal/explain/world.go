// Package explain walks a packet through planned or read state and answers the steps it takes, each with the object that
// decided. It is a small model of the kernel's IPv4/IPv6 path: netfilter hooks, route lookup, neighbour and FDB lookup,
// bridge ports, veth pairs, VXLAN, and of the relay that accepts connections in user space.
//
// Floor 2, planners: pure.
package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/netstate"
	"weft/internal/packet"
)

// Hook is a place where netfilter rules see a packet (nft(8), "ADDRESS FAMILIES").
type Hook string

// The hooks of the IP path.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// Packet is what the rules look at.
type Packet struct {
	packet.Flow
	In, Out string // interfaces; "" before they are known
	Mark    uint32
	DNATed  bool // the connection's destination was changed
	// Inside is the frame in a VXLAN packet; nil: the packet is none.
	Inside *Inside
}

// Inside is what rules can see of the frame in a VXLAN packet.
type Inside struct {
	VNI       uint32
	EtherType uint16
	Src       netip.Addr // of an IP packet
}

// Action is what a ruleset did to a packet.
type Action uint8

// The actions.
const (
	Accept Action = iota
	Drop
	Reject
	DNAT       // destination becomes To; with Redirect the address of the interface the packet came in by
	Redirect   // destination port becomes To's port, address that of the incoming interface
	Masquerade // source becomes the address of the interface the packet leaves by
	SetMark
	Jump  // goes on in another chain: nothing is done to the packet, but a map's element decided
	Keep  // the source stays, and no rule after this changes it
	OneOf // one of the Alternatives happens, by chance
)

// Outcome is one thing a ruleset does to a packet at a hook, with the rule that says so.
type Outcome struct {
	Action Action
	To     []netip.AddrPort // DNAT, Redirect: any of these
	Mark   uint32           // SetMark: XORed into the mark after the bits of Mask are cleared
	Mask   uint32
	Chain  string // Jump
	// Alternatives is for OneOf: what happens when each is drawn.
	Alternatives [][]Outcome
	Rule         string // the rule as its program prints it
}

// Rules is a ruleset that can be asked what it does to a packet. Outcomes come in the order they happen; the last one
// ends the evaluation of the hook when it is Drop or Reject.
type Rules interface {
	Eval(hook Hook, p Packet) []Outcome
}

// Host is one network namespace: a node or a pod.
type Host struct {
	Name  string
	Pod   bool
	Netns string         // pods: the network namespace as the node's veth names it
	State netstate.State // links, addresses, routes, neighbours, FDB entries, listeners
	// Underlay is what the host has without us: its addresses and routes.
	Underlay netstate.State
	Rules    []Rules
}

// World is every host that a packet may cross, and the wires between them: veth pairs by the Peer fields of the links with
// Netns naming the other host, VXLAN devices by FDB entries, everything else by addresses on a common segment.
type World struct {
	Hosts []*Host
}

// host returns the host with the name, or nil.
func (w World) host(name string) *Host {
	i := slices.IndexFunc(w.Hosts, func(h *Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return w.Hosts[i]
}

// owner returns the host that has the address and the device it is on.
func (w World) owner(ip netip.Addr, nodesOnly bool) (*Host, string) {
	for _, h := range w.Hosts {
		if nodesOnly && h.Pod {
			continue
		}
		if dev := h.devOf(ip); dev != "" {
			return h, dev
		}
	}
	return nil, ""
}

// addrs returns all addresses, the underlay's first.
func (h *Host) addrs() []netstate.Addr {
	return append(netstate.Of[netstate.Addr](h.Underlay), netstate.Of[netstate.Addr](h.State)...)
}

// Local reports whether the address is one of the host's own.
func (h *Host) Local(ip netip.Addr) bool { return h.devOf(ip) != "" }

// devOf returns the device of h that has the address, or "".
func (h *Host) devOf(ip netip.Addr) string {
	if ip.IsLoopback() {
		return "lo"
	}
	for _, a := range h.addrs() {
		if a.Prefix.Addr() == ip {
			return a.Dev
		}
	}
	return ""
}

// addrOf returns the first address of the device in the family.
func (h *Host) addrOf(dev string, v6 bool) netip.Addr {
	for _, a := range h.addrs() {
		if a.Dev == dev && a.Prefix.Addr().Is6() == v6 {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

func (h *Host) link(name string) (netstate.Link, bool) {
	o, ok := h.State.Get(netstate.ID{Kind: netstate.KindLink, Key: name})
	if !ok {
		return netstate.Link{}, false
	}
	l, ok := o.(netstate.Link)
	return l, ok
}

// route is the longest-prefix match over planned routes and the connected prefixes of the addresses.
func (h *Host) route(dst netip.Addr) (netstate.Route, string, bool) {
	var best netstate.Route
	var text string
	found := false
	better := func(r netstate.Route) bool {
		return r.Dst.Contains(dst) && (!found || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric)
	}
	for _, r := range netstate.Of[netstate.Route](h.State) {
		if r.Table == 0 && better(r) {
			best, text, found = r, "ip route: "+r.String(), true
		}
	}
	for _, r := range netstate.Of[netstate.Route](h.Underlay) {
		if r.Table == 0 && better(r) {
			mark := fmt.Sprintf(" proto %d", netstate.RouteProtocol)
			best, text, found = r, "ip route: "+strings.Replace(r.String(), mark, "", 1), true
		}
	}
	for _, a := range h.addrs() {
		r := netstate.Route{Dst: a.Prefix.Masked(), Dev: a.Dev, Src: a.Prefix.Addr(), Scope: "link"}
		if !a.Prefix.IsSingleIP() && better(r) {
			best, found = r, true
			text = "ip route: " + r.Dst.String() + " dev " + r.Dev + " proto kernel scope link src " + r.Src.String()
		}
	}
	return best, text, found
}
