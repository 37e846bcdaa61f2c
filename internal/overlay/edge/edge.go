// Package edge plans what a node's packet filter does for the overlay whatever programs the services: outer packets are not tracked,
// VXLAN packets are taken only from live peers and only with an inner source inside the sender's subnet, and on an encrypted network
// nothing for a pod leaves in clear.
//
// The check is one lookup for a good packet: outer source and inner source, cut to the subnet's length, are one key of a set. Sets are
// by VNI, families and length, nearly always one in all, so that each lease is one element of a hash.
//
// Floor 2, planners: pure.
package edge

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"weft/internal/nft"
)

// Reason says why a packet was refused.
type Reason string

// The reasons, in the order they are looked for.
const (
	Short     Reason = "short"     // it ends within the headers
	VNI       Reason = "vni"       // of a network this node is not part of
	EtherType Reason = "ethertype" // the frame is no IP packet of a family the pods have: ARP is answered where it is asked
	Peer      Reason = "peer"      // the outer source is no live peer
	Source    Reason = "source"    // the outer source is a peer, the inner source is outside its subnet
	Cleartext Reason = "cleartext" // it was to leave without encryption
)

// Reasons are those of refused VXLAN packets.
func Reasons() []Reason { return []Reason{Short, VNI, EtherType, Peer, Source} }

// Chain is the chain that counts and drops what is refused for the reason.
func (r Reason) Chain() string {
	if r == Cleartext {
		return chainSealed
	}
	return "edge-refused-" + string(r)
}

// Segment is a VXLAN network this node takes packets of.
type Segment struct {
	Port uint16
	VNI  uint32
}

// Member is a subnet behind an outer address, in a VXLAN network.
type Member struct {
	VNI    uint32
	Outer  netip.Addr   // where its packets come from
	Subnet netip.Prefix // where the packets inside come from
}

// shape is what members have in common that are in one set.
type shape struct {
	vni              uint32
	outerV6, innerV6 bool
	bits             int
}

func (m Member) shape() shape {
	return shape{m.VNI, m.Outer.Is6(), m.Subnet.Addr().Is6(), m.Subnet.Bits()}
}

// Shapes are the forms of members for which the rules look. It is a value of its own so that a change of members is no change of rules.
type Shapes struct{ all []shape }

// ShapesOf returns the forms that occur, sorted.
func ShapesOf(members []Member) Shapes {
	seen := map[shape]bool{}
	var s Shapes
	for _, m := range members {
		if k := m.shape(); !seen[k] {
			seen[k] = true
			s.all = append(s.all, k)
		}
	}
	slices.SortFunc(s.all, func(a, b shape) int {
		return cmp.Or(cmp.Compare(a.vni, b.vni), boolCompare(a.outerV6, b.outerV6), boolCompare(a.innerV6, b.innerV6), -cmp.Compare(a.bits, b.bits))
	})
	return s
}

// Has reports whether the member's form is among them.
func (s Shapes) Has(m Member) bool { return slices.Contains(s.all, m.shape()) }

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Config is what holds for the node as a whole.
type Config struct {
	// Untracked are the UDP ports of outer packets that connection tracking must not see: it would track each as a connection, twice,
	// for nothing. Packets of others with these ports are tracked: services may have such a port, and masquerading may choose it.
	Untracked []uint16
	// Check takes packets of the segments only from members. Off, everything is taken.
	Check    bool
	Segments []Segment
	Shapes   Shapes
	V4, V6   bool // the families of pods, and so of what may be inside
	Seal     Seal
}

// Seal keeps packets for pods from leaving in clear. The zero Seal does not.
type Seal struct {
	Networks []netip.Prefix // where pods are, without what of it is the hosts'
	Devices  []string       // by which packets for pods may leave: the encrypted ones, and those of pods; "veth*" is all that begin so
}

// The names in table inet weft.
const (
	chainIn     = "overlay-prerouting"
	chainOut    = "overlay-output"
	chainInner  = "edge-inner"
	chainMember = "edge-member"
	chainSeal   = "seal-postrouting"
	chainSealed = "seal-cleartext"
	setPeers4   = "edge-peers4"
	setPeers6   = "edge-peers6"
)

// Rules are the chains and the sets, without members.
func Rules(c Config) nft.Table {
	t := nft.New()
	c.outer(&t)
	c.seal(&t)
	if c.checks() {
		c.check(&t)
	}
	return t
}

// Elements are the member's elements of the sets, its own first, then that of its outer address, which it may share: they go beside Rules of a
// Config whose Shapes have the member's.
func Elements(m Member) nft.Table {
	t := nft.New()
	set := m.shape().set()
	set.Elements = []nft.Element{m.element()}
	t.Sets = []nft.Set{set, Outer(m.Outer)}
	return t
}

func (m Member) element() nft.Element {
	return nft.Element{Key: nft.TupleBuilder(nil).Addr(m.Outer).Addr(m.Subnet.Masked().Addr()).Tuple()}
}

// Outer is the set of the members' outer addresses with one of them.
func Outer(a netip.Addr) nft.Set {
	s := peerSet(a.Is6())
	s.Elements = []nft.Element{{Key: nft.TupleBuilder(nil).Addr(a).Tuple()}}
	return s
}

// Sets are the sets of many members, each element once, in no order.
func Sets(members iter.Seq[Member]) []nft.Set {
	var out []nft.Set
	at := map[shape]int{}
	seen := map[netip.Addr]bool{}
	peers := [2]nft.Set{peerSet(false), peerSet(true)}
	for m := range members {
		i, ok := at[m.shape()]
		if !ok {
			i = len(out)
			at[m.shape()], out = i, append(out, m.shape().set())
		}
		out[i].Elements = append(out[i].Elements, m.element())
		if seen[m.Outer] {
			continue
		}
		seen[m.Outer] = true
		p := &peers[0]
		if m.Outer.Is6() {
			p = &peers[1]
		}
		p.Elements = append(p.Elements, Outer(m.Outer).Elements...)
	}
	return append(out, peers[:]...)
}

func (c Config) checks() bool { return c.Check && len(c.Segments) > 0 }

// outer adds the hooks for outer packets, one of each direction: every packet pays for every hook, one from a pod as well.
func (c Config) outer(t *nft.Table) {
	ports := c.ports()
	var in, out []nft.Rule
	for _, p := range ports {
		if c.checks() {
			in = append(in, toPort(p, jump(portChain(p))))
		}
	}
	for _, p := range c.Untracked {
		if !slices.Contains(ports, p) {
			out = append(out, rule(udp, nft.Match{Field: nft.ThSport, Num: uint32(p)}, nft.Notrack{}))
			in = append(in, c.answered(p)...)
			continue
		}
		for _, header := range vxlanHeaders() {
			out = append(out, toPort(p, append(header, nft.Notrack{})...))
			if !c.checks() {
				in = append(in, toPort(p, append(header, here, nft.Notrack{})...))
			}
		}
	}
	for _, h := range []struct {
		name  string
		hook  nft.Hook
		rules []nft.Rule
	}{{chainIn, nft.Prerouting, in}, {chainOut, nft.Output, out}} {
		if len(h.rules) > 0 {
			base(t, h.name, h.hook, h.rules)
		}
	}
}

// answered keeps packets to a tunnel that is a socket from being tracked. Its peers send from the port they receive at. Anything else to
// the port may be the answer to a masqueraded flow that happens to have it, or be for a service of a pod.
func (c Config) answered(port uint16) (rules []nft.Rule) {
	for _, from := range c.Untracked {
		if !slices.Contains(c.ports(), from) {
			rules = append(rules, toPort(port, nft.Match{Field: nft.ThSport, Num: uint32(from)}, here, nft.Notrack{}))
		}
	}
	return rules
}

func toPort(p uint16, s ...nft.Statement) nft.Rule {
	return rule(append([]nft.Statement{udp, nft.Match{Field: nft.ThDport, Num: uint32(p)}}, s...)...)
}

// seal drops at postrouting, where the device is known, and before a source address is changed there.
func (c Config) seal(t *nft.Table) {
	if len(c.Seal.Networks) == 0 {
		return
	}
	var to, by []nft.Rule
	for _, n := range c.Seal.Networks {
		f := nft.IPDaddr
		if n.Addr().Is6() {
			f = nft.IP6Daddr
		}
		to = append(to, rule(nft.Match{Field: f, Prefix: n.Masked()}, jump(chainSealed)))
	}
	for _, d := range c.Seal.Devices {
		by = append(by, rule(nft.Match{Field: nft.OIFName, Name: d}, nft.Verdict{Kind: nft.Accept}))
	}
	by = append(by, nft.Rule{Statements: []nft.Statement{nft.Counter{}, drop}, Comment: "cleartext to pods"})
	base(t, chainSeal, nft.Postrouting, to)
	t.Chains = append(t.Chains, nft.Chain{Name: chainSealed, Rules: by})
}

func base(t *nft.Table, name string, hook nft.Hook, rules []nft.Rule) {
	t.Chains = append(t.Chains, nft.Chain{Name: name, Base: nft.Base{Type: nft.Filter, Hook: hook, Priority: nft.PriorityRaw}, Rules: rules})
}

func rule(s ...nft.Statement) nft.Rule { return nft.Rule{Statements: s} }

func jump(chain string) nft.Verdict { return nft.Verdict{Kind: nft.Goto, Chain: chain} }

var (
	udp    = nft.Match{Field: nft.L4Proto, Num: nft.UDP}
	here   = nft.Match{Field: nft.FibDaddrType, Num: nft.TypeLocal}
	accept = nft.Verdict{Kind: nft.Accept}
	drop   = nft.Verdict{Kind: nft.Drop}
)
