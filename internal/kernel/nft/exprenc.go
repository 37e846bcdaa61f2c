package nft

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// Constants of linux/netfilter/nf_tables.h that x/sys lacks or spells by type.
const (
	regVerdict = 0
	reg32      = 8 // NFT_REG32_00
	allBits    = ^uint32(0)
)

// reg is the number of the register that is n words of 4 bytes into the register file.
func reg(n int) uint32 { return uint32(reg32 + n) }

// rules encodes the expressions of one rule.
type ruleEncoder struct {
	b        *buf
	family   nft.Family
	implicit [2]bool // the family of IPv4, IPv6 fields was checked
}

// expr appends an expression; body appends its attributes.
func (e *ruleEncoder) expr(name string, body func()) {
	at := e.b.begin(unix.NFTA_LIST_ELEM)
	e.b.str(unix.NFTA_EXPR_NAME, name)
	if body != nil {
		data := e.b.begin(unix.NFTA_EXPR_DATA)
		body()
		e.b.end(data)
	}
	e.b.end(at)
}

// statement encodes a statement as nft(8) does, apart from its optimizations.
func (e *ruleEncoder) statement(s nft.Statement) error {
	switch s := s.(type) {
	case nft.Match:
		return e.match(s)
	case nft.Lookup:
		e.load(0, s.Key)
		e.lookup(s.Set, 0, -1, s.Not)
	case nft.VMap:
		e.load(0, s.Key)
		e.expr("lookup", func() {
			e.b.str(unix.NFTA_LOOKUP_SET, s.Map)
			e.b.u32(unix.NFTA_LOOKUP_SREG, reg(0))
			e.b.u32(unix.NFTA_LOOKUP_DREG, regVerdict)
		})
	case nft.DNAT:
		e.dnat(s)
	case nft.KeepSource:
		e.keepSource(s)
	case nft.Masquerade:
		e.expr("masq", func() {
			if s.FullyRandom {
				e.b.u32(unix.NFTA_MASQ_FLAGS, unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY)
			}
		})
	case nft.Reject:
		return e.reject(s)
	case nft.Notrack:
		e.expr("notrack", nil)
	case nft.Counter:
		e.expr("counter", func() {})
	case nft.SetMark:
		e.setMark(s)
	case nft.Update:
		e.update(s)
	case nft.Verdict:
		e.expr("immediate", func() {
			e.b.u32(unix.NFTA_IMMEDIATE_DREG, regVerdict)
			at := e.b.begin(unix.NFTA_IMMEDIATE_DATA)
			verdict(e.b, s)
			e.b.end(at)
		})
	default:
		return fmt.Errorf("statement %q can't be programmed", s)
	}
	return nil
}

// verdictCodes are the kernel's numbers of the verdicts.
var verdictCodes = [...]int32{
	nft.Continue: unix.NFT_CONTINUE, nft.Accept: 1, nft.Drop: 0, nft.Return: unix.NFT_RETURN, nft.Jump: unix.NFT_JUMP, nft.Goto: unix.NFT_GOTO,
}

func verdict(b *buf, v nft.Verdict) {
	at := b.begin(unix.NFTA_DATA_VERDICT)
	b.u32(unix.NFTA_VERDICT_CODE, uint32(verdictCodes[v.Kind]))
	if v.Chain != "" {
		b.str(unix.NFTA_VERDICT_CHAIN, v.Chain)
	}
	b.end(at)
}

// value appends data as a nested attribute.
func (e *ruleEncoder) value(typ uint16, v []byte) {
	at := e.b.begin(typ)
	e.b.attr(unix.NFTA_DATA_VALUE, v)
	e.b.end(at)
}

func (e *ruleEncoder) cmp(not bool, v []byte) {
	e.expr("cmp", func() {
		e.b.u32(unix.NFTA_CMP_SREG, reg(0))
		op := uint32(unix.NFT_CMP_EQ)
		if not {
			op = unix.NFT_CMP_NEQ
		}
		e.b.u32(unix.NFTA_CMP_OP, op)
		e.value(unix.NFTA_CMP_DATA, v)
	})
}

func (e *ruleEncoder) bitwise(word int, mask, xor []byte) {
	e.expr("bitwise", func() {
		e.b.u32(unix.NFTA_BITWISE_SREG, reg(word))
		e.b.u32(unix.NFTA_BITWISE_DREG, reg(word))
		e.b.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		e.value(unix.NFTA_BITWISE_MASK, mask)
		e.value(unix.NFTA_BITWISE_XOR, xor)
	})
}

func (e *ruleEncoder) immediate(word int, v []byte) {
	e.expr("immediate", func() {
		e.b.u32(unix.NFTA_IMMEDIATE_DREG, reg(word))
		e.value(unix.NFTA_IMMEDIATE_DATA, v)
	})
}

func word32(n uint32) []byte { return native.AppendUint32(nil, n) }

// match encodes a comparison of one field.
func (e *ruleEncoder) match(m nft.Match) error {
	e.load(0, []nft.Expr{{Field: m.Field}})
	switch m.Field {
	case nft.IIFName, nft.OIFName:
		e.cmp(m.Not, ifName(m.Name))
	case nft.MetaMark, nft.CtMark:
		if m.Mask != 0 {
			e.bitwise(0, word32(m.Mask), word32(0))
		}
		e.cmp(m.Not, word32(m.Num))
	case nft.CtState, nft.CtStatus:
		if m.Not {
			return fmt.Errorf("match %q: bits can't be compared with !=", m)
		}
		e.bitwise(0, word32(m.Num), word32(0))
		e.cmp(true, word32(0))
	case nft.L4Proto, nft.NFProto, nft.PktType, nft.CtDirection, nft.VXLANFlags, nft.VXLANReserved:
		e.cmp(m.Not, []byte{byte(m.Num)})
	case nft.FibDaddrType, nft.FibSaddrType, nft.FibDaddrHere:
		e.cmp(m.Not, word32(m.Num))
	case nft.ThSport, nft.ThDport, nft.InnerType:
		e.cmp(m.Not, []byte{byte(m.Num >> 8), byte(m.Num)})
	case nft.VNI:
		e.cmp(m.Not, []byte{byte(m.Num >> 16), byte(m.Num >> 8), byte(m.Num)})
	case nft.IPSaddr, nft.IPDaddr, nft.IP6Saddr, nft.IP6Daddr:
		if !m.Prefix.IsValid() {
			return fmt.Errorf("match on %s without address", m.Field)
		}
		if !m.Prefix.IsSingleIP() {
			mask := prefixMask(m.Prefix)
			e.bitwise(0, mask, make([]byte, len(mask)))
		}
		e.cmp(m.Not, m.Prefix.Masked().Addr().AsSlice())
	default:
		return fmt.Errorf("match %q can't be programmed", m)
	}
	return nil
}

// ifName is the name with its padding, or without when it is the beginning of names.
func ifName(name string) []byte {
	if begin, ok := strings.CutSuffix(name, "*"); ok {
		return []byte(begin)
	}
	v := make([]byte, 16)
	copy(v, name)
	return v
}

func prefixMask(p netip.Prefix) []byte { return firstBits(p.Bits(), p.Addr().BitLen()/8) }

// firstBits is the mask of so many bits in length bytes.
func firstBits(bits, length int) []byte {
	mask := make([]byte, length)
	for i := range min(bits, 8*length) {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// check restricts the rule to a family before its first field of that family, as nft(8) does in tables of family inet.
func (e *ruleEncoder) check(f nft.Field) {
	if of := f.Hashed(); of != 0 {
		f = of
	}
	v6 := f == nft.IP6Saddr || f == nft.IP6Daddr
	if !v6 && f != nft.IPSaddr && f != nft.IPDaddr {
		return
	}
	i, proto := 0, byte(nft.ProtoIPv4)
	if v6 {
		i, proto = 1, nft.ProtoIPv6
	}
	if e.family != nft.INet || e.implicit[i] {
		return
	}
	e.implicit[i] = true
	e.meta(0, unix.NFT_META_NFPROTO)
	e.cmp(false, []byte{proto})
}

// load puts the fields of a key into registers from the word on and returns the number of words.
func (e *ruleEncoder) load(word int, key []nft.Expr) int {
	for _, k := range key {
		e.check(k.Field)
	}
	n := word
	for _, k := range key {
		e.field(n, k)
		if k.Bits != 0 {
			mask := firstBits(int(k.Bits), k.Field.Type().Len())
			e.bitwise(n, mask, make([]byte, len(mask)))
		}
		n += words(k.Field.Type())
	}
	return n - word
}

// words is the number of registers of 4 bytes a type takes.
func words(t nft.Type) int {
	if t == 0 {
		return 1
	}
	return align(t.Len()) / 4
}

func (e *ruleEncoder) meta(word int, key uint32) {
	e.expr("meta", func() {
		e.b.u32(unix.NFTA_META_DREG, reg(word))
		e.b.u32(unix.NFTA_META_KEY, key)
	})
}

// metaKeys, ctKeys, payloads and fibFlags say where the kernel finds the fields.
var (
	metaKeys = map[nft.Field]uint32{
		nft.IIFName: unix.NFT_META_IIFNAME, nft.OIFName: unix.NFT_META_OIFNAME, nft.MetaMark: unix.NFT_META_MARK,
		nft.L4Proto: unix.NFT_META_L4PROTO, nft.NFProto: unix.NFT_META_NFPROTO, nft.PktType: unix.NFT_META_PKTTYPE,
	}
	ctKeys = map[nft.Field]uint32{
		nft.CtState: unix.NFT_CT_STATE, nft.CtStatus: unix.NFT_CT_STATUS, nft.CtDirection: unix.NFT_CT_DIRECTION, nft.CtMark: unix.NFT_CT_MARK,
	}
	payloads = map[nft.Field]payload{
		nft.IPSaddr: {networkHeader, 12, 4}, nft.IPDaddr: {networkHeader, 16, 4},
		nft.IP6Saddr: {networkHeader, 8, 16}, nft.IP6Daddr: {networkHeader, 24, 16},
		nft.ThSport: {transportHeader, 0, 2}, nft.ThDport: {transportHeader, 2, 2},
		nft.VXLANFlags: {transportHeader, 8, 1}, nft.VXLANReserved: {transportHeader, 15, 1},
		nft.VNI: {transportHeader, 12, 3}, nft.InnerType: {transportHeader, 28, 2},
		nft.InnerSaddr: {transportHeader, 42, 4}, nft.InnerSaddr6: {transportHeader, 38, 16},
	}
	fibFlags = map[nft.Field]uint32{
		nft.FibSaddrType: unix.NFTA_FIB_F_SADDR, nft.FibDaddrType: unix.NFTA_FIB_F_DADDR,
		nft.FibDaddrHere: unix.NFTA_FIB_F_DADDR | unix.NFTA_FIB_F_IIF,
	}
)

type payload struct{ base, offset, length uint32 }

const (
	networkHeader   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transportHeader = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

func (e *ruleEncoder) field(word int, k nft.Expr) {
	if key, ok := metaKeys[k.Field]; ok {
		e.meta(word, key)
		return
	}
	if key, ok := ctKeys[k.Field]; ok {
		e.expr("ct", func() {
			e.b.u32(unix.NFTA_CT_DREG, reg(word))
			e.b.u32(unix.NFTA_CT_KEY, key)
		})
		return
	}
	if flags, ok := fibFlags[k.Field]; ok {
		e.expr("fib", func() {
			e.b.u32(unix.NFTA_FIB_DREG, reg(word))
			e.b.u32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
			e.b.u32(unix.NFTA_FIB_FLAGS, flags)
		})
		return
	}
	if k.Field == nft.Random {
		e.expr("numgen", func() {
			e.b.u32(unix.NFTA_NG_DREG, reg(word))
			e.b.u32(unix.NFTA_NG_MODULUS, k.Mod)
			e.b.u32(unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM)
			e.b.u32(unix.NFTA_NG_OFFSET, 0)
		})
		return
	}
	if k.Field.Hashed() != 0 {
		e.hash(word, k)
		return
	}
	p := payloads[k.Field]
	e.expr("payload", func() {
		e.b.u32(unix.NFTA_PAYLOAD_DREG, reg(word))
		e.b.u32(unix.NFTA_PAYLOAD_BASE, p.base)
		e.b.u32(unix.NFTA_PAYLOAD_OFFSET, p.offset)
		e.b.u32(unix.NFTA_PAYLOAD_LEN, p.length)
	})
}

// lookup looks the key in the registers up; to is the word the value goes to, -1 for a set.
func (e *ruleEncoder) lookup(set string, from, to int, not bool) {
	e.expr("lookup", func() {
		e.b.str(unix.NFTA_LOOKUP_SET, set)
		e.b.u32(unix.NFTA_LOOKUP_SREG, reg(from))
		if to >= 0 {
			e.b.u32(unix.NFTA_LOOKUP_DREG, reg(to))
		}
		if not {
			e.b.u32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
		}
	})
}

func (e *ruleEncoder) dnat(d nft.DNAT) {
	port := 1
	family := uint32(unix.NFPROTO_IPV4)
	if d.V6 {
		port, family = 4, unix.NFPROTO_IPV6
	}
	if d.Map != "" {
		e.load(0, d.Key)
		e.lookup(d.Map, 0, 0, false)
	} else {
		e.immediate(0, d.To.Addr().AsSlice())
		e.immediate(port, []byte{byte(d.To.Port() >> 8), byte(d.To.Port())})
	}
	e.expr("nat", func() {
		e.b.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		e.b.u32(unix.NFTA_NAT_FAMILY, family)
		e.b.u32(unix.NFTA_NAT_REG_ADDR_MIN, reg(0))
		e.b.u32(unix.NFTA_NAT_REG_PROTO_MIN, reg(port))
	})
}

// rejects are the kernel's type and code of the answers.
var rejects = map[nft.RejectWith][2]uint32{
	nft.TCPReset:         {unix.NFT_REJECT_TCP_RST, 0},
	nft.RouteUnreachable: {unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_NO_ROUTE},
	nft.PortUnreachable:  {unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_PORT_UNREACH},
	nft.HostUnreachable:  {unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_HOST_UNREACH},
	nft.AdminProhibited:  {unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED},
}

func (e *ruleEncoder) reject(r nft.Reject) error {
	v, ok := rejects[r.With]
	if !ok {
		return fmt.Errorf("reject with %q can't be programmed", r.With)
	}
	e.expr("reject", func() {
		e.b.u32(unix.NFTA_REJECT_TYPE, v[0])
		if v[0] != unix.NFT_REJECT_TCP_RST {
			e.b.attr(unix.NFTA_REJECT_ICMP_CODE, []byte{byte(v[1])})
		}
	})
	return nil
}
