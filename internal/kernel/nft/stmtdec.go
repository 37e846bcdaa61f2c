package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// key returns the loads as components of a key that begins at word 0, up to the word where the data begin (-1: all).
func (d *ruleDecoder) key(end int) (key []nft.Expr, rest []load, ok bool) {
	at := 0
	for i, l := range d.loads {
		if end >= 0 && l.word >= end {
			return key, d.loads[i:], at == end
		}
		if l.word != at || len(d.values) > 0 && end < 0 {
			return nil, nil, false
		}
		at += words(l.expr.Field.Type())
		key = append(key, l.expr)
	}
	return key, nil, len(key) > 0 && (end < 0 || at == end)
}

func (d *ruleDecoder) bitwise(e *expression) error {
	if n := len(d.loads); n > 0 && (d.loads[n-1].expr.Field == nft.InnerSaddr || d.loads[n-1].expr.Field == nft.InnerSaddr6) {
		return d.masked(e, &d.loads[n-1])
	}
	if len(d.loads) != 1 || d.mask != nil || e.word(unix.NFTA_BITWISE_SREG) != 0 || e.word(unix.NFTA_BITWISE_DREG) != 0 ||
		e.num(bitwiseOp) != 0 {
		return errForeign
	}
	if d.mask, d.xor = e.data(unix.NFTA_BITWISE_MASK), e.data(unix.NFTA_BITWISE_XOR); len(d.mask) == 0 || len(d.xor) != len(d.mask) {
		return errForeign
	}
	return nil
}

// masked is a component of a key of which only the first bits count.
func (d *ruleDecoder) masked(e *expression, l *load) error {
	mask, xor := e.data(unix.NFTA_BITWISE_MASK), e.data(unix.NFTA_BITWISE_XOR)
	bits := 0
	for ; bits < 8*len(mask) && mask[bits/8]&(0x80>>(bits%8)) != 0; bits++ {
	}
	if l.expr.Bits != 0 || bits == 0 || bits == 8*len(mask) || len(mask) != l.expr.Field.Type().Len() ||
		!bytes.Equal(mask, firstBits(bits, len(mask))) || len(xor) != len(mask) || len(bytes.Trim(xor, "\x00")) > 0 ||
		e.word(unix.NFTA_BITWISE_SREG) != l.word || e.word(unix.NFTA_BITWISE_DREG) != l.word || e.num(bitwiseOp) != 0 {
		return errForeign
	}
	l.expr.Bits = uint8(bits)
	return nil
}

func (d *ruleDecoder) cmp(e *expression) error {
	op, v := e.num(unix.NFTA_CMP_OP), e.data(unix.NFTA_CMP_DATA)
	if len(d.loads) != 1 || d.loads[0].word != 0 || len(d.values) > 0 || d.mapped != nil || e.word(unix.NFTA_CMP_SREG) != 0 ||
		op > unix.NFT_CMP_NEQ || len(bytes.Trim(d.xor, "\x00")) > 0 {
		return errForeign
	}
	m := nft.Match{Field: d.loads[0].expr.Field, Not: op == unix.NFT_CMP_NEQ}
	if !compared(&m, v, d.mask) {
		return errForeign
	}
	if m.Field == nft.NFProto && d.family == nft.INet {
		d.flush()
		d.check, d.loads = &m, nil
		return nil
	}
	return d.emit(m, []nft.Expr{{Field: m.Field}})
}

// compared fills in what a field is compared with.
func compared(m *nft.Match, v, mask []byte) bool {
	switch m.Field {
	case nft.IPSaddr, nft.IPDaddr, nft.IP6Saddr, nft.IP6Daddr:
		return comparedAddr(m, v, mask)
	case nft.CtState, nft.CtStatus:
		if !m.Not || len(mask) != 4 || len(v) != 4 || native.Uint32(v) != 0 {
			return false
		}
		m.Not, m.Num = false, native.Uint32(mask)
		return true
	case nft.MetaMark, nft.CtMark:
		if len(v) != 4 || mask != nil && len(mask) != 4 {
			return false
		}
		m.Num = native.Uint32(v)
		if mask != nil {
			m.Mask = native.Uint32(mask)
		}
		return true
	}
	return mask == nil && comparedPlain(m, v)
}

// comparedPlain is for fields that are compared as a whole.
func comparedPlain(m *nft.Match, v []byte) bool {
	switch m.Field {
	case nft.IIFName, nft.OIFName:
		if m.Name = text(v); len(v) < 16 {
			m.Name += "*"
		}
	case nft.L4Proto, nft.NFProto, nft.PktType, nft.CtDirection, nft.VXLANFlags, nft.VXLANReserved:
		if m.Num = uint32(number(v)); len(v) != 1 {
			return false
		}
	case nft.FibDaddrType, nft.FibSaddrType, nft.FibDaddrHere:
		if len(v) != 4 {
			return false
		}
		m.Num = native.Uint32(v)
	case nft.ThSport, nft.ThDport, nft.InnerType:
		if len(v) != 2 {
			return false
		}
		m.Num = uint32(binary.BigEndian.Uint16(v))
	case nft.VNI:
		if len(v) != 3 {
			return false
		}
		m.Num = uint32(v[0])<<16 | uint32(v[1])<<8 | uint32(v[2])
	default:
		return false
	}
	return true
}

func comparedAddr(m *nft.Match, v, mask []byte) bool {
	a, ok := netip.AddrFromSlice(v)
	if !ok || mask != nil && len(mask) != len(v) {
		return false
	}
	bits := a.BitLen()
	if mask != nil {
		for bits = 0; bits < a.BitLen() && mask[bits/8]&(0x80>>(bits%8)) != 0; bits++ {
		}
	}
	m.Prefix = netip.PrefixFrom(a, bits)
	return (mask == nil || bits < a.BitLen() && bytes.Equal(mask, prefixMask(m.Prefix))) && m.Prefix == m.Prefix.Masked()
}

func (d *ruleDecoder) lookup(e *expression) error {
	key, _, ok := d.key(-1)
	set := text(e.a[unix.NFTA_LOOKUP_SET])
	flags := e.num(unix.NFTA_LOOKUP_FLAGS)
	if !ok || d.mask != nil || d.mapped != nil || e.word(unix.NFTA_LOOKUP_SREG) != 0 || flags&^unix.NFT_LOOKUP_F_INV != 0 {
		return errForeign
	}
	switch e.word(unix.NFTA_LOOKUP_DREG) {
	case -2:
		return d.emit(nft.Lookup{Key: key, Set: set, Not: flags != 0}, key)
	case -1:
		return d.emit(nft.VMap{Key: key, Map: set}, key)
	case 0:
		d.mapped, d.loads = &nft.DNAT{Key: key, Map: set}, nil
		return nil
	}
	return errForeign
}

func (d *ruleDecoder) immediate(e *expression) error {
	word := e.word(unix.NFTA_IMMEDIATE_DREG)
	if word >= 0 {
		if d.mapped != nil || d.mask != nil {
			return errForeign
		}
		d.values = append(d.values, value{word, e.data(unix.NFTA_IMMEDIATE_DATA)})
		return nil
	}
	v, ok := decodeVerdict(e.a[unix.NFTA_IMMEDIATE_DATA])
	if word != -1 || !ok || len(d.loads)+len(d.values) > 0 || d.mapped != nil {
		return errForeign
	}
	return d.emit(v, nil)
}

// decodeVerdict reads data that hold a verdict.
func decodeVerdict(data []byte) (nft.Verdict, bool) {
	a, _, err := parse(data)
	if err != nil {
		return nft.Verdict{}, false
	}
	v, _, err := parse(a[unix.NFTA_DATA_VERDICT])
	if err != nil || v[unix.NFTA_VERDICT_CODE] == nil {
		return nft.Verdict{}, false
	}
	code := int32(number(v[unix.NFTA_VERDICT_CODE]))
	for k, c := range verdictCodes {
		if c == code {
			return nft.Verdict{Kind: nft.VerdictKind(k), Chain: text(v[unix.NFTA_VERDICT_CHAIN])}, true
		}
	}
	return nft.Verdict{}, false
}

func (d *ruleDecoder) nat(e *expression) error {
	const rangeSpecified = unix.NF_NAT_RANGE_MAP_IPS | unix.NF_NAT_RANGE_PROTO_SPECIFIED // the kernel sets them itself
	v6 := e.num(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV6
	port := 1
	if v6 {
		port = 4
	}
	same := func(first, last int) bool { return e.a[last] == nil || e.word(last) == e.word(first) }
	if e.num(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_SNAT {
		return d.keepSource(e, v6)
	}
	if e.num(unix.NFTA_NAT_TYPE) != unix.NFT_NAT_DNAT || e.word(unix.NFTA_NAT_REG_ADDR_MIN) != 0 ||
		e.word(unix.NFTA_NAT_REG_PROTO_MIN) != port || !same(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX) ||
		!same(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX) || e.num(unix.NFTA_NAT_FLAGS)&^rangeSpecified != 0 {
		return errForeign
	}
	if d.mapped != nil && len(d.loads)+len(d.values) == 0 {
		s := *d.mapped
		s.V6 = v6
		return d.emit(s, s.Key)
	}
	to, ok := d.addrPort(0)
	if !ok || len(d.loads) > 0 || to.Addr().Is6() != v6 {
		return errForeign
	}
	return d.emit(nft.DNAT{V6: v6, To: to}, nil)
}

// addrPort reads two immediate values, an address at the word and a port behind it.
func (d *ruleDecoder) addrPort(word int) (netip.AddrPort, bool) {
	if len(d.values) != 2 || d.values[0].word != word || len(d.values[1].data) != 2 {
		return netip.AddrPort{}, false
	}
	a, ok := netip.AddrFromSlice(d.values[0].data)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(d.values[1].data)), ok && d.values[1].word == word+a.BitLen()/32
}

func (d *ruleDecoder) setMark(e *expression) error {
	if e.num(unix.NFTA_META_KEY) != unix.NFT_META_MARK || e.word(unix.NFTA_META_SREG) != 0 || d.mapped != nil {
		return errForeign
	}
	if len(d.loads) == 0 && len(d.values) == 1 && d.values[0].word == 0 && len(d.values[0].data) == 4 {
		return d.emit(nft.SetMark{Mask: allBits, Value: native.Uint32(d.values[0].data)}, nil)
	}
	if len(d.loads) != 1 || len(d.values) > 0 || d.loads[0] != (load{0, nft.Expr{Field: nft.MetaMark}}) || len(d.mask) != 4 {
		return errForeign
	}
	return d.emit(nft.SetMark{Mask: ^native.Uint32(d.mask), Value: native.Uint32(d.xor)}, nil)
}

func (d *ruleDecoder) dynset(e *expression) error {
	timeout := number(e.a[unix.NFTA_DYNSET_TIMEOUT])
	if e.num(unix.NFTA_DYNSET_OP) != unix.NFT_DYNSET_OP_UPDATE || e.word(unix.NFTA_DYNSET_SREG_KEY) != 0 || timeout%1000 != 0 ||
		e.num(unix.NFTA_DYNSET_FLAGS) != 0 || d.mask != nil || d.mapped != nil || e.a[unix.NFTA_DYNSET_EXPR] != nil {
		return errForeign
	}
	end := e.word(unix.NFTA_DYNSET_SREG_DATA)
	key, rest, ok := d.key(end)
	if !ok {
		return errForeign
	}
	u := nft.Update{Set: text(e.a[unix.NFTA_DYNSET_SET_NAME]), Key: key, Timeout: uint32(timeout / 1000)}
	fields := key
	for _, l := range rest {
		if l.word != end {
			return errForeign
		}
		end += words(l.expr.Field.Type())
		u.Data = append(u.Data, l.expr)
		fields = append(slices.Clip(fields), l.expr)
	}
	if len(d.values) > 0 {
		if u.To, ok = d.addrPort(end); !ok || len(rest) > 0 {
			return errForeign
		}
	}
	return d.emit(u, fields)
}
