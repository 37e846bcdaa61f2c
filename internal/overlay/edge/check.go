package edge

import (
	"fmt"
	"slices"

	"weft/internal/nft"
)

// check adds the chains of the check, which the hook at prerouting leads to. The reasons have chains of their own, which do not
// change, so that their counters go on when the rules before them do.
func (c Config) check(t *nft.Table) {
	for _, p := range c.ports() {
		t.Chains = append(t.Chains, c.port(p), c.strangers(p))
	}
	for _, s := range c.Shapes.all {
		if slices.Contains(c.vnis(), s.vni) {
			t.Sets = append(t.Sets, s.set())
		}
	}
	t.Chains = append(t.Chains, c.inner(), c.member(t))
	for _, r := range Reasons() {
		c.refuse(t, r)
	}
}

func (c Config) ports() (out []uint16) {
	for _, s := range c.Segments {
		out = append(out, s.Port)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c Config) vnis() (out []uint32) {
	for _, s := range c.Segments {
		out = append(out, s.VNI)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func portChain(port uint16) string { return fmt.Sprintf("edge-port-%d", port) }

func strangersChain(port uint16) string { return fmt.Sprintf("edge-strangers-%d", port) }

// port accepts what comes from members of the port's networks, before anything else is asked: nearly all packets end there. What is no VXLAN
// packet goes on: the device takes none, and connection tracking may know it as the answer to a masqueraded flow that happens to have this
// port, or lead it to a service. A packet too short for a field matches neither the field's value nor any other one.
func (c Config) port(port uint16) nft.Chain {
	ch := nft.Chain{Name: portChain(port)}
	for _, seg := range c.Segments {
		for _, s := range c.Shapes.all {
			if seg.Port != port || s.vni != seg.VNI {
				continue
			}
			good := []nft.Statement{nft.Match{Field: nft.VNI, Num: seg.VNI}, inner(s.innerV6), nft.Lookup{Key: s.key(), Set: s.set().Name}}
			if slices.Contains(c.Untracked, port) {
				good = append(good, nft.Notrack{})
			}
			ch.Rules = append(ch.Rules, rule(append(good, accept)...))
		}
	}
	for _, header := range vxlanHeaders() {
		ch.Rules = append(ch.Rules, rule(append(header, jump(strangersChain(port)))...))
	}
	return ch
}

// vxlanHeaders are the matches of the headers that a VXLAN device takes; it drops packets with any other.
func vxlanHeaders() [][]nft.Statement {
	header := func(flags uint32) []nft.Statement {
		return []nft.Statement{nft.Match{Field: nft.VXLANFlags, Num: flags}, nft.Match{Field: nft.VXLANReserved}}
	}
	return [][]nft.Statement{header(nft.VXLANFlagVNI), header(nft.VXLANFlagsGBP)}
}

// strangers judges VXLAN packets from no member. What is on its way to another host is not ours to judge; the rest is refused, for the reason
// that is found. Addresses are local ones of any interface or, where the interface is of a VRF, of that.
func (c Config) strangers(port uint16) nft.Chain {
	ch := nft.Chain{Name: strangersChain(port)}
	ch.Rules = append(ch.Rules, rule(
		nft.Match{Field: nft.FibDaddrType, Num: nft.TypeUnicast}, nft.Match{Field: nft.FibDaddrHere, Not: true, Num: nft.TypeLocal}, accept))
	var one uint32
	for _, seg := range c.Segments {
		if seg.Port == port {
			one = seg.VNI
			ch.Rules = append(ch.Rules, rule(nft.Match{Field: nft.VNI, Num: seg.VNI}, jump(chainInner)))
		}
	}
	ch.Rules = append(ch.Rules,
		rule(nft.Match{Field: nft.VNI, Not: true, Num: one}, jump(VNI.Chain())),
		rule(jump(Short.Chain())))
	return ch
}

// inner finds out what is wrong with a packet of a known network that is from no member.
func (c Config) inner() nft.Chain {
	ch := nft.Chain{Name: chainInner}
	var one bool
	for _, v6 := range []bool{false, true} {
		if c.family(v6) {
			one = v6
			ch.Rules = append(ch.Rules, rule(inner(v6), jump(chainMember)))
		}
	}
	other := inner(one)
	other.Not = true
	ch.Rules = append(ch.Rules, rule(other, jump(EtherType.Chain())), rule(jump(Short.Chain())))
	return ch
}

func (c Config) family(v6 bool) bool { return v6 && c.V6 || !v6 && c.V4 }

// member tells peers with a wrong inner source from strangers.
func (c Config) member(t *nft.Table) nft.Chain {
	ch := nft.Chain{Name: chainMember}
	for _, v6 := range []bool{false, true} {
		if c.family(v6) {
			set := peerSet(v6)
			t.Sets = append(t.Sets, set)
			ch.Rules = append(ch.Rules, rule(nft.Lookup{Key: []nft.Expr{outer(v6)}, Set: set.Name}, jump(Source.Chain())))
		}
	}
	ch.Rules = append(ch.Rules, rule(jump(Peer.Chain())))
	return ch
}

// Who was refused is remembered for an hour, at most so many senders for each reason and family; the counters go on when it is full.
const (
	whoSeconds = 3600
	whoSize    = 128
)

// refuse adds the chain of a reason, which notes who it was, counts and drops.
func (c Config) refuse(t *nft.Table, r Reason) {
	ch := nft.Chain{Name: r.Chain()}
	for _, w := range c.whos(r) {
		t.Sets = append(t.Sets, w.Set)
		var s []nft.Statement
		if len(w.key) > 1 {
			s = append(s, inner(w.innerV6))
		}
		s = append(s, nft.Update{Set: w.Set.Name, Key: w.key})
		ch.Rules = append(ch.Rules, rule(s...))
	}
	ch.Rules = append(ch.Rules, nft.Rule{Statements: []nft.Statement{nft.Counter{}, drop}, Comment: "refused: " + string(r)})
	t.Chains = append(t.Chains, ch)
}

// Who is a set of senders that were refused for a reason. Its keys are the outer source and, where that matters, the inner one.
type Who struct {
	Reason  Reason
	Set     nft.Set
	key     []nft.Expr
	innerV6 bool
}

// Refused returns the sets of senders that were refused.
func Refused(c Config) []Who {
	var out []Who
	if !c.Check || len(c.Segments) == 0 {
		return nil
	}
	for _, r := range Reasons() {
		out = append(out, c.whos(r)...)
	}
	return out
}

func (c Config) whos(r Reason) (out []Who) {
	for _, outerV6 := range []bool{false, true} {
		if !c.family(outerV6) {
			continue
		}
		if r != Peer && r != Source {
			out = append(out, who(r, digit(outerV6), false, outer(outerV6)))
			continue
		}
		for _, innerV6 := range []bool{false, true} {
			if c.family(innerV6) {
				out = append(out, who(r, digit(innerV6)+"in"+digit(outerV6), innerV6, outer(outerV6), innerAddr(innerV6)))
			}
		}
	}
	return out
}

func who(r Reason, families string, innerV6 bool, key ...nft.Expr) Who {
	set := nft.Set{Name: "edge-" + string(r) + "-" + families, Dynamic: true, Timeout: whoSeconds, Size: whoSize}
	for _, e := range key {
		set.Key = append(set.Key, e.Field.Type())
	}
	return Who{r, set, key, innerV6}
}

func digit(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

// inner matches the family of the frame inside.
func inner(v6 bool) nft.Match {
	if v6 {
		return nft.Match{Field: nft.InnerType, Num: nft.EtherIPv6}
	}
	return nft.Match{Field: nft.InnerType, Num: nft.EtherIPv4}
}

func outer(v6 bool) nft.Expr {
	if v6 {
		return nft.Expr{Field: nft.IP6Saddr}
	}
	return nft.Expr{Field: nft.IPSaddr}
}

func innerAddr(v6 bool) nft.Expr {
	if v6 {
		return nft.Expr{Field: nft.InnerSaddr6}
	}
	return nft.Expr{Field: nft.InnerSaddr}
}

// key is the outer source and the inner one, cut to the subnet's length.
func (s shape) key() []nft.Expr {
	in := innerAddr(s.innerV6)
	if s.bits < in.Field.Type().Len()*8 {
		in.Bits = uint8(s.bits)
	}
	return []nft.Expr{outer(s.outerV6), in}
}

// set is that of the shape's members, "edge-1-4in4-24": VNI, inner and outer family, length.
func (s shape) set() nft.Set {
	name := fmt.Sprintf("edge-%d-%sin%s-%d", s.vni, digit(s.innerV6), digit(s.outerV6), s.bits)
	key := s.key()
	return nft.Set{Name: name, Key: []nft.Type{key[0].Field.Type(), key[1].Field.Type()}}
}

func peerSet(v6 bool) nft.Set {
	if v6 {
		return nft.Set{Name: setPeers6, Key: []nft.Type{nft.IPv6Addr}}
	}
	return nft.Set{Name: setPeers4, Key: []nft.Type{nft.IPv4Addr}}
}
