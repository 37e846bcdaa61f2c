package explain

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/maglev"
	"weft/internal/nft"
)

// NFTables answers from table inet weft for the first packet of a connection.
type NFTables struct {
	Table nft.Table
	// Local reports whether an address is the host's own (fib expressions).
	Local func(netip.Addr) bool
}

// maxJumps bounds jumps between chains: the kernel allows 16.
const maxJumps = 16

// Eval implements Rules.
func (t NFTables) Eval(hook Hook, p Packet) []Outcome {
	var base []nft.Chain
	for _, c := range t.Table.Chains {
		if string(c.Base.Hook) == string(hook) {
			base = append(base, c)
		}
	}
	slices.SortStableFunc(base, func(a, b nft.Chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
	e := nftWalk{t: t, p: p}
	for _, c := range base {
		if c.Base.Type == nft.NAT && e.natted {
			continue // a connection's address is changed once at each hook
		}
		verdict := e.chain(c, 0)
		if verdict == nft.Drop || verdict != nft.Accept && c.Base.Drop {
			if verdict != nft.Drop {
				e.out = append(e.out, Outcome{Action: Drop, Rule: "nft inet weft " + c.Name + ": policy drop"})
			}
			break
		}
	}
	return e.out
}

// nftWalk is one packet at one hook.
type nftWalk struct {
	t      NFTables
	p      Packet
	out    []Outcome
	natted bool
	member string // the element of a set that let the rule go on
}

// chain runs the chain's rules until one ends it.
func (e *nftWalk) chain(c nft.Chain, depth int) nft.VerdictKind {
	if depth > maxJumps {
		return nft.Continue
	}
	for _, r := range c.Rules {
		v := e.rule(c, r, depth)
		if v != nft.Continue {
			return v
		}
	}
	return nft.Continue
}

// rule runs one rule. A return ends the chain and lets the caller go on, which is what Return means to the caller of chain.
func (e *nftWalk) rule(c nft.Chain, r nft.Rule, depth int) nft.VerdictKind {
	text := "nft inet weft " + c.Name + ": " + r.String()
	e.member = ""
	for _, s := range r.Statements {
		if m, is := s.(nft.VMap); is && draws(m.Key) > 1 {
			if end, found := e.drawn(m, text, depth); found {
				return end
			}
			continue
		}
		matched, verdict, why := e.statement(s)
		if !matched {
			return nft.Continue
		}
		if why.Action != Accept {
			why.Rule = text + why.Rule
			e.out = append(e.out, why)
			e.p = apply(e.p, why)
		}
		switch verdict.Kind {
		case nft.Continue:
			continue
		case nft.Jump, nft.Goto:
			next := e.t.Table.Chain(verdict.Chain)
			if next == nil {
				return nft.Continue
			}
			end := e.chain(*next, depth+1)
			if end == nft.Accept || end == nft.Drop {
				return end
			}
			if verdict.Kind == nft.Goto {
				return nft.Return
			}
		case nft.Accept, nft.Drop, nft.Return:
			if why.Action == Accept {
				e.ended(verdict.Kind, text)
			}
			return verdict.Kind
		}
	}
	return nft.Continue
}

// ended notes a rule that ended the walk: one that drops, and one of the edge check that takes a packet.
func (e *nftWalk) ended(by nft.VerdictKind, text string) {
	switch {
	case by == nft.Drop:
		e.out = append(e.out, Outcome{Action: Drop, Rule: text})
	case by == nft.Accept && e.p.Inside != nil && e.member != "":
		e.out = append(e.out, Outcome{Action: Accept, Rule: text + " {" + e.member + "}"})
	}
}

// statement says whether the rule goes on, with which verdict, and what is done to the packet. The outcome's Rule is what a
// map's element adds to the rule's text.
func (e *nftWalk) statement(s nft.Statement) (matched bool, v nft.Verdict, o Outcome) {
	switch s := s.(type) {
	case nft.Match:
		return e.match(s), v, o
	case nft.Lookup:
		el, found := e.lookup(s.Set, s.Key, 0)
		if found {
			e.member = e.elementText(s.Set, el)
		}
		return found != s.Not, v, o
	case nft.VMap:
		return e.vmap(s)
	case nft.DNAT:
		return e.dnat(s)
	case nft.KeepSource:
		if e.p.Dst.Addr().Is6() != s.V6 {
			return false, v, o
		}
		e.natted = true
		return true, nft.Verdict{Kind: nft.Accept}, Outcome{Action: Keep}
	case nft.Masquerade:
		e.natted = true
		return true, nft.Verdict{Kind: nft.Accept}, Outcome{Action: Masquerade}
	case nft.Reject:
		return true, nft.Verdict{Kind: nft.Drop}, Outcome{Action: Reject}
	case nft.SetMark:
		return true, v, Outcome{Action: SetMark, Mark: s.Value, Mask: s.Mask}
	case nft.Verdict:
		return true, s, o
	case nft.Notrack:
		e.natted = true // no chain of type nat sees it
	case nft.Foreign:
		return false, v, o // what it does is not known
	}
	return true, v, o // counter, update: nothing that decides
}

func (e *nftWalk) vmap(s nft.VMap) (bool, nft.Verdict, Outcome) {
	el, found := e.lookup(s.Map, s.Key, 0)
	if !found {
		return true, nft.Verdict{}, Outcome{}
	}
	why := Outcome{Action: Jump, Chain: el.Verdict.Chain, Rule: " {" + e.elementText(s.Map, el) + "}"}
	switch el.Verdict.Kind {
	case nft.Drop:
		why.Action = Drop
	case nft.Accept, nft.Return:
		why.Action = Accept
	}
	return true, el.Verdict, why
}

func (e *nftWalk) elementText(set string, el nft.Element) string {
	m := e.t.Table.Set(set)
	return m.ElementText(el)
}

// dnat collects every destination the statement may choose: a random number in the key stands for all its values. Each is named once, by the
// first element that leads to it.
func (e *nftWalk) dnat(s nft.DNAT) (bool, nft.Verdict, Outcome) {
	accept := nft.Verdict{Kind: nft.Accept}
	if s.To.IsValid() {
		e.natted = true
		return true, accept, Outcome{Action: DNAT, To: []netip.AddrPort{s.To}}
	}
	var to []netip.AddrPort
	var texts []string
	for n := range min(draws(s.Key), maxChoices) {
		el, found := e.lookup(s.Map, s.Key, n)
		if !found {
			continue
		}
		values := el.Data.Values(e.t.Table.Set(s.Map).Data)
		if len(values) != 2 {
			continue
		}
		if x := netip.AddrPortFrom(values[0].Addr, uint16(values[1].Num)); !slices.Contains(to, x) {
			to = append(to, x)
			texts = append(texts, e.elementText(s.Map, el))
		}
	}
	if len(to) == 0 {
		return false, nft.Verdict{}, Outcome{}
	}
	e.natted = true
	return true, accept, Outcome{Action: DNAT, To: to, Rule: " {" + strings.Join(texts, ", ") + "}"}
}

// maxChoices bounds how many endpoints of one service are listed.
const maxChoices = 1000

// appendField appends a field of the packet to a key; ok is false when the packet does not have it.
func (e *nftWalk) appendField(b nft.TupleBuilder, x nft.Expr, random uint32) (nft.TupleBuilder, bool) {
	switch f := x.Field; f {
	case nft.InnerSaddr, nft.InnerSaddr6:
		a, ok := e.innerAddr(x)
		if !ok {
			return b, false
		}
		return b.Addr(a), true
	case nft.IIFName:
		return b.IfName(e.p.In), true
	case nft.OIFName:
		return b.IfName(e.p.Out), true
	case nft.Random:
		return b.Num(random), true
	case nft.HashSaddr, nft.HashSaddr6:
		a, ok := e.addr(f.Hashed())
		if !ok || x.Mod > math.MaxInt32 {
			return b, false
		}
		return b.Num(maglev.Slot(a, int(x.Mod), x.Seed)), true
	case nft.MetaMark:
		return b.Num(e.p.Mark), true
	case nft.L4Proto:
		return b.Proto(protoNumber(e.p.Proto)), true
	case nft.ThSport:
		return b.Port(e.p.Src.Port()), true
	case nft.ThDport:
		return b.Port(e.p.Dst.Port()), true
	case nft.IPSaddr, nft.IPDaddr, nft.IP6Saddr, nft.IP6Daddr:
		a, ok := e.addr(f)
		if !ok {
			return b, false
		}
		return b.Addr(a), true
	}
	return b, false
}

// innerAddr is the source of the packet inside, cut to the bits that count.
func (e *nftWalk) innerAddr(x nft.Expr) (netip.Addr, bool) {
	if e.p.Inside == nil || e.p.Inside.Src.Is6() != (x.Field == nft.InnerSaddr6) || !e.p.Inside.Src.IsValid() {
		return netip.Addr{}, false
	}
	a := e.p.Inside.Src
	if x.Bits != 0 {
		p, err := a.Prefix(int(x.Bits))
		return p.Addr(), err == nil
	}
	return a, true
}

// addr is an address field; ok is false for a packet of the other family.
func (e *nftWalk) addr(f nft.Field) (netip.Addr, bool) {
	a := e.p.Dst.Addr()
	if f == nft.IPSaddr || f == nft.IP6Saddr {
		a = e.p.Src.Addr()
	}
	v6 := f == nft.IP6Saddr || f == nft.IP6Daddr
	return a, a.IsValid() && a.Is6() == v6
}

func protoNumber(name string) uint8 {
	switch strings.ToLower(name) {
	case "tcp":
		return nft.TCP
	case "udp":
		return nft.UDP
	case "sctp":
		return nft.SCTP
	case "icmp":
		return nft.ICMP
	}
	return 0
}

// match compares a field.
func (e *nftWalk) match(m nft.Match) bool {
	switch m.Field {
	case nft.IPSaddr, nft.IPDaddr, nft.IP6Saddr, nft.IP6Daddr:
		a, ok := e.addr(m.Field)
		return ok && m.Prefix.Contains(a) != m.Not
	case nft.IIFName:
		return ifName(m.Name, e.p.In) != m.Not
	case nft.OIFName:
		return ifName(m.Name, e.p.Out) != m.Not
	case nft.CtState:
		return m.Num&nft.CtNew != 0
	case nft.CtStatus:
		return e.p.DNATed && m.Num&nft.CtDNAT != 0
	}
	n, ok := e.number(m.Field)
	if m.Mask != 0 {
		n &= m.Mask
	}
	return ok && (n == m.Num) != m.Not
}

func ifName(pattern, name string) bool {
	if begin, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(name, begin)
	}
	return pattern == name
}

// number is a field that is a number.
func (e *nftWalk) number(f nft.Field) (uint32, bool) {
	switch f {
	case nft.MetaMark:
		return e.p.Mark, true
	case nft.L4Proto:
		return uint32(protoNumber(e.p.Proto)), true
	case nft.NFProto:
		if e.p.Dst.Addr().Is6() {
			return nft.ProtoIPv6, true
		}
		return nft.ProtoIPv4, true
	case nft.PktType, nft.CtDirection, nft.CtMark:
		return 0, true
	case nft.VXLANFlags, nft.VXLANReserved, nft.VNI, nft.InnerType:
		return e.inside(f)
	case nft.FibDaddrType, nft.FibDaddrHere:
		return e.addrType(e.p.Dst.Addr()), true
	case nft.FibSaddrType:
		return e.addrType(e.p.Src.Addr()), true
	case nft.ThSport:
		return uint32(e.p.Src.Port()), true
	case nft.ThDport:
		return uint32(e.p.Dst.Port()), true
	}
	return 0, false
}

// inside is a number of the frame in a VXLAN packet.
func (e *nftWalk) inside(f nft.Field) (uint32, bool) {
	if e.p.Inside == nil {
		return 0, false
	}
	switch f {
	case nft.VXLANFlags:
		return nft.VXLANFlagVNI, true
	case nft.VXLANReserved:
		return 0, true
	case nft.VNI:
		return e.p.Inside.VNI, true
	}
	return uint32(e.p.Inside.EtherType), true
}

func (e *nftWalk) addrType(a netip.Addr) uint32 {
	switch {
	case a.IsMulticast():
		return 5
	case a.IsValid() && e.t.Local != nil && e.t.Local(a):
		return nft.TypeLocal
	}
	return 1
}
