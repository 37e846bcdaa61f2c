package nft

import (
	"math"
	"net/netip"
	"strings"
)

func (p *parser) rule() Rule {
	var r Rule
	for p.err == nil && len(p.words) > 0 {
		if p.have("comment") {
			if r.Comment = p.quoted(); r.Comment == "" {
				p.fail("empty comment: leave it out")
			} else if quote(r.Comment) != `"`+r.Comment+`"` || len(r.Comment) > maxComment {
				p.fail("comment %q: want at most %d printable bytes", short(r.Comment), maxComment)
			}
			if len(p.words) > 0 {
				p.fail("%q after the comment", short(p.words[0]))
			}
			break
		}
		if s := p.statement(); p.err == nil {
			r.Statements = append(r.Statements, s)
		}
	}
	return r
}

var plainVerdicts = map[string]VerdictKind{"continue": Continue, "accept": Accept, "drop": Drop, "return": Return}

func (p *parser) statement() Statement {
	w := p.peek()
	if k, ok := plainVerdicts[w]; ok {
		p.next()
		return Verdict{Kind: k}
	}
	switch w {
	case "jump", "goto":
		return p.verdict()
	case "notrack":
		p.next()
		return Notrack{}
	case "counter":
		p.next()
		return Counter{}
	case "masquerade":
		p.next()
		return Masquerade{FullyRandom: p.have("fully-random")}
	case "snat":
		return p.keepSource()
	case "reject":
		return p.reject()
	case "dnat":
		return p.dnat()
	case "update":
		return p.update()
	}
	if p.have("meta", "mark", "set") {
		return p.setMark()
	}
	return p.match()
}

func (p *parser) verdict() Verdict {
	w := p.next()
	if k, ok := plainVerdicts[w]; ok {
		return Verdict{Kind: k}
	}
	switch w {
	case "jump":
		return Verdict{Kind: Jump, Chain: p.name()}
	case "goto":
		return Verdict{Kind: Goto, Chain: p.name()}
	}
	p.fail("unknown verdict %q", short(w))
	return Verdict{}
}

func (p *parser) reject() Statement {
	p.expect("reject", "with")
	for _, w := range []RejectWith{PortUnreachable, AdminProhibited, TCPReset, HostUnreachable, RouteUnreachable} {
		if p.have(strings.Fields(string(w))...) {
			return Reject{With: w}
		}
	}
	p.fail("unknown answer of reject")
	return nil
}

func (p *parser) dnat() Statement {
	p.expect("dnat")
	d := DNAT{V6: p.have("ip6")}
	if !d.V6 {
		p.expect("ip")
	}
	p.expect("to")
	if to, err := netip.ParseAddrPort(p.peek()); err == nil {
		p.next()
		if to.Addr().Is4() == d.V6 || to.Addr().Zone() != "" {
			p.fail("%s is of the other family", to)
		}
		d.To = to
		return d
	}
	d.Key = p.key()
	p.expect("map")
	d.Map = p.set()
	return d
}

// keepSource reads the only source NAT there is here: to the address that the packet has.
func (p *parser) keepSource() Statement {
	p.expect("snat")
	if p.have("ip6", "to", "ip6", "saddr") {
		return KeepSource{V6: true}
	}
	p.expect("ip", "to", "ip", "saddr")
	return KeepSource{}
}

func (p *parser) update() Statement {
	p.expect("update")
	u := Update{Set: p.set()}
	p.expect("{")
	u.Key = p.key()
	if p.have("timeout") {
		u.Timeout = p.seconds()
	}
	if p.have(":") {
		if a, err := netip.ParseAddr(p.peek()); err == nil && a.Zone() == "" {
			p.next()
			p.expect(".")
			u.To = netip.AddrPortFrom(a, uint16(p.number(math.MaxUint16)))
		} else {
			u.Data = p.key()
		}
	}
	p.expect("}")
	return u
}

func (p *parser) setMark() Statement {
	if !p.have("meta", "mark") {
		return SetMark{Mask: math.MaxUint32, Value: p.number(math.MaxUint32)}
	}
	op := p.next()
	n := p.number(math.MaxUint32)
	switch op {
	case "|":
		return SetMark{Mask: n, Value: n}
	case "^":
		return SetMark{Value: n}
	case "&":
		m := SetMark{Mask: ^n}
		if p.have("^") {
			m.Value = p.number(math.MaxUint32)
		}
		return m
	}
	p.fail("unknown operator %q", short(op))
	return nil
}

// expr reads one component of a key.
func (p *parser) expr() Expr {
	for f := IIFName; f <= lastField; f++ {
		if !p.have(strings.Fields(f.String())...) {
			continue
		}
		e := Expr{Field: f}
		if f == Random || f.Hashed() != 0 {
			if e.Mod = p.number(math.MaxUint32); e.Mod == 0 && p.err == nil {
				p.fail("%s 0: want the number of numbers", f)
			}
		}
		if f.Hashed() != 0 {
			p.expect("seed")
			e.Seed = p.number(math.MaxUint32)
		}
		if (f == InnerSaddr || f == InnerSaddr6) && p.have("&") {
			var ok bool
			if e.Bits, ok = bitsOfMask(f, p.next()); !ok {
				p.fail("mask of %s: want the first bits, like 0xffffff00", f)
			}
		}
		return e
	}
	if p.err == nil {
		p.fail("unknown words %q", short(strings.Join(p.words, " ")))
	}
	return Expr{}
}

func (p *parser) key() []Expr {
	key := []Expr{p.expr()}
	for p.have(".") {
		key = append(key, p.expr())
	}
	return key
}

// match reads what begins with a field: a comparison or a lookup.
func (p *parser) match() Statement {
	key := p.key()
	if p.have("vmap") {
		return VMap{Key: key, Map: p.set()}
	}
	if strings.HasPrefix(p.peek(), "@") {
		return Lookup{Key: key, Set: p.set()}
	}
	m := Match{Field: key[0].Field}
	if p.have("&") {
		if m.Mask = p.number(math.MaxUint32); m.Mask == 0 || m.Field != MetaMark && m.Field != CtMark {
			p.fail("mask of %s", m.Field)
		}
	}
	if m.Not = p.have("!="); m.Not && strings.HasPrefix(p.peek(), "@") && m.Mask == 0 {
		return Lookup{Key: key, Not: true, Set: p.set()}
	}
	if !m.Not {
		p.have("==")
	}
	if len(key) > 1 || !m.Field.comparable() || m.Not && m.Field.isBits() {
		p.fail("%s can't be compared so", keyText(key))
	}
	p.operand(&m)
	return m
}

// limits are the highest numbers of the fields that hold less than 32 bits.
var limits = map[Field]uint64{
	L4Proto: math.MaxUint8, NFProto: math.MaxUint8, PktType: math.MaxUint8, CtDirection: math.MaxUint8,
	ThSport: math.MaxUint16, ThDport: math.MaxUint16, VXLANFlags: math.MaxUint8, VXLANReserved: math.MaxUint8, VNI: 1<<24 - 1, InnerType: math.MaxUint16,
}

func (p *parser) operand(m *Match) {
	switch f := m.Field; f {
	case IIFName, OIFName:
		m.Name = p.ifName()
	case IPSaddr, IPDaddr, IP6Saddr, IP6Daddr:
		m.Prefix = p.prefix(f)
	case CtState, CtStatus:
		m.Num = p.bits(bitWords[f])
	default:
		limit, ok := limits[f]
		if !ok {
			limit = math.MaxUint32
		}
		m.Num = p.wordNumber(numberWords[f], limit)
	}
}
