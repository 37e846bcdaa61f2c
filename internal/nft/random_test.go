package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// pick returns one of the values.
func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomPrefix(r *rand.Rand, v6 bool) netip.Prefix {
	if v6 {
		var a [16]byte
		a[0], a[1], a[15] = 0xfd, byte(r.IntN(4)), byte(r.IntN(256))
		return netip.PrefixFrom(netip.AddrFrom16(a), r.IntN(129)).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))}), r.IntN(33)).Masked()
}

func randomKey(r *rand.Rand) []Expr {
	var key []Expr
	for range 1 + r.IntN(4) {
		e := Expr{Field: pick(r, IIFName, OIFName, L4Proto, IPSaddr, IPDaddr, IP6Saddr, IP6Daddr, ThSport, ThDport, Random, InnerSaddr, InnerSaddr6,
			HashSaddr, HashSaddr6)}
		if e.Field == Random || e.Field.Hashed() != 0 {
			e.Mod = 1 + r.Uint32N(1000)
		}
		if e.Field.Hashed() != 0 {
			e.Seed = r.Uint32()
		}
		if e.Field == InnerSaddr || e.Field == InnerSaddr6 {
			e.Bits = uint8(r.IntN(e.Field.Type().Len() * 8))
		}
		key = append(key, e)
	}
	return key
}

func randomMatch(r *rand.Rand) Match {
	m := Match{Field: 1 + Field(r.IntN(int(InnerType))), Not: r.IntN(2) == 0}
	switch m.Field {
	case Random:
		m.Field, m.Num = InnerType, pick[uint32](r, EtherIPv4, EtherIPv6, r.Uint32N(1<<16))
	case VNI:
		m.Num = r.Uint32N(1 << 24)
	case IIFName, OIFName:
		m.Name = pick(r, "eth0", "flannel.*", "weft-0123456789", "*")
	case MetaMark, CtMark:
		m.Num, m.Mask = r.Uint32(), pick(r, 0, 1, r.Uint32())
	case IPSaddr, IPDaddr:
		m.Prefix = randomPrefix(r, false)
	case IP6Saddr, IP6Daddr:
		m.Prefix = randomPrefix(r, true)
	case ThSport, ThDport:
		m.Num = r.Uint32N(1 << 16)
	case CtState, CtStatus:
		m.Num, m.Not = 1+r.Uint32N(1<<8-1), false
	default:
		m.Num = r.Uint32N(1 << 8)
	}
	return m
}

var addrPorts = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("[fd00::1]:443")}

func randomStatement(r *rand.Rand) Statement {
	switch r.IntN(12) {
	case 0:
		return Lookup{Key: randomKey(r), Not: r.IntN(2) == 0, Set: "s"}
	case 1:
		return VMap{Key: randomKey(r), Map: "m-4"}
	case 2:
		to := pick(r, addrPorts...)
		return DNAT{V6: to.Addr().Is6(), To: to}
	case 3:
		return DNAT{V6: r.IntN(2) == 0, Key: randomKey(r), Map: "eps.4"}
	case 4:
		return Masquerade{FullyRandom: r.IntN(2) == 0}
	case 5:
		return Reject{With: pick(r, PortUnreachable, AdminProhibited, TCPReset, HostUnreachable, RouteUnreachable)}
	case 6:
		return pick[Statement](r, Notrack{}, Counter{})
	case 7:
		v := r.Uint32()
		return pick(r, SetMark{}, SetMark{Mask: v, Value: v}, SetMark{Value: v}, SetMark{Mask: v}, SetMark{Mask: v, Value: v / 3}, SetMark{Mask: 1<<32 - 1, Value: v})
	case 8:
		u := Update{Set: "recent", Key: randomKey(r), Timeout: pick[uint32](r, 0, 10800)}
		switch r.IntN(3) {
		case 0:
			u.To = pick(r, addrPorts...)
		case 1:
			u.Data = randomKey(r)
		}
		return u
	case 9:
		return KeepSource{V6: r.IntN(2) == 0}
	case 10:
		return pick(r, Verdict{}, Verdict{Kind: Accept}, Verdict{Kind: Drop}, Verdict{Kind: Return}, Verdict{Jump, "a-b"}, Verdict{Goto, "c.d/e"})
	}
	return randomMatch(r)
}

func randomRule(r *rand.Rand) Rule {
	rule := Rule{Comment: pick(r, "", "", "default/nginx:http", "two words { } : @")}
	for range r.IntN(5) {
		rule.Statements = append(rule.Statements, randomStatement(r))
	}
	return rule
}

// randomTable returns a table of a small universe, so that two of them share names and keys.
func randomTable(r *rand.Rand) Table {
	t := New()
	for i := range 4 {
		if r.IntN(3) == 0 {
			continue
		}
		c := Chain{Name: fmt.Sprintf("c%d", i)}
		if i > 1 {
			c.Base = Base{Type: Filter, Hook: Input, Priority: i}
		}
		for range r.IntN(3) {
			c.Rules = append(c.Rules, Rule{Statements: []Statement{Verdict{Kind: pick(r, Accept, Drop)}}})
		}
		t.Chains = append(t.Chains, c)
	}
	for i := range 3 {
		if r.IntN(3) == 0 {
			continue
		}
		s := Set{Name: fmt.Sprintf("s%d", i), Key: []Type{IPv4Addr, InetProto}}
		switch i {
		case 0:
			s.Data = []Type{InetService}
		case 1:
			s.Verdicts = true
		}
		for k := range 6 {
			e := Element{Key: TupleBuilder(nil).Addr(netip.AddrFrom4([4]byte{10, 0, 0, byte(k)})).Proto(TCP).Tuple()}
			switch {
			case r.IntN(2) == 0:
				continue
			case i == 0:
				e.Data = TupleBuilder(nil).Port(uint16(r.IntN(3))).Tuple()
			case i == 1:
				e.Verdict = Verdict{Kind: pick(r, Accept, Drop)}
			}
			s.Elements = append(s.Elements, e)
		}
		t.Sets = append(t.Sets, s)
	}
	return t
}
