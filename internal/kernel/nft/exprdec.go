package nft

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// bitwiseOp is NFTA_BITWISE_OP; 0 is mask and xor.
const bitwiseOp = 6

// errForeign says that an expression is none of those this package makes.
var errForeign = errors.New("not one of ours")

// expression is an expression of a rule as the kernel tells it.
type expression struct {
	name string
	a    attrs
}

// parseExpressions reads NFTA_RULE_EXPRESSIONS.
func parseExpressions(b []byte) ([]expression, error) {
	var out []expression
	err := attributes(b, func(_ uint16, v []byte) error {
		var e expression
		var inner error
		err := attributes(v, func(typ uint16, v []byte) error {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				e.name = text(v)
			case unix.NFTA_EXPR_DATA:
				var foreign bool
				if e.a, foreign, inner = parse(v); foreign {
					e.name += "?"
				}
			}
			return inner
		})
		out = append(out, e)
		return err
	})
	return out, err
}

// statements turns expressions back into the statements they were made from; a rule that was not made by this package becomes
// one foreign statement.
func statements(family nft.Family, all []expression) []nft.Statement {
	d := ruleDecoder{family: family}
	for i := range all {
		if err := d.expression(&all[i]); err != nil {
			return foreign(all)
		}
	}
	if len(d.loads)+len(d.values) > 0 || d.mapped != nil {
		return foreign(all)
	}
	d.flush()
	return d.out
}

func foreign(all []expression) []nft.Statement {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.name
	}
	return []nft.Statement{nft.Foreign{Text: "# " + strings.Join(names, " ")}}
}

// ruleDecoder follows what expressions put into registers until one uses it.
type ruleDecoder struct {
	family    nft.Family
	out       []nft.Statement
	loads     []load
	values    []value
	mask, xor []byte // of a bitwise expression on the only load
	mapped    *nft.DNAT
	implicit  [2]bool
	check     *nft.Match // a comparison of nfproto that the next statement may imply
}

type load struct {
	word int
	expr nft.Expr
}

type value struct {
	word int
	data []byte
}

// only reports whether the expression has no attributes but these.
func (e *expression) only(types ...int) bool {
	var allowed uint64
	for _, t := range types {
		allowed |= 1 << t
	}
	for t, v := range e.a {
		if v != nil && allowed&(1<<t) == 0 {
			return false
		}
	}
	return true
}

func (e *expression) num(typ int) uint32 { return uint32(number(e.a[typ])) }

// word is the register of an attribute as number of its first word of 4 bytes, -1 for the verdict register, -2 for none.
func (e *expression) word(typ int) int {
	if e.a[typ] == nil {
		return -2
	}
	switch n := e.num(typ); {
	case n == regVerdict:
		return -1
	case n <= 4: // NFT_REG_1 and so on: 16 bytes each
		return int(n-1) * 4
	case n >= reg32 && n < reg32+16:
		return int(n - reg32)
	}
	return -2
}

// data is the value of a nested attribute.
func (e *expression) data(typ int) []byte {
	a, _, err := parse(e.a[typ])
	if err != nil {
		return nil
	}
	return a[unix.NFTA_DATA_VALUE]
}

func (d *ruleDecoder) expression(e *expression) error {
	switch e.name {
	case "meta", "ct", "payload", "fib", "numgen":
		if e.name == "meta" && e.a[unix.NFTA_META_SREG] != nil {
			return d.setMark(e)
		}
		return d.load(e)
	case "hash":
		return d.hash(e)
	case "bitwise":
		return d.bitwise(e)
	case "cmp":
		return d.cmp(e)
	case "lookup":
		return d.lookup(e)
	case "immediate":
		return d.immediate(e)
	case "nat":
		return d.nat(e)
	case "dynset":
		return d.dynset(e)
	}
	if len(d.loads)+len(d.values) > 0 || d.mapped != nil {
		return errForeign
	}
	return d.plain(e)
}

// plain decodes what uses no register.
func (d *ruleDecoder) plain(e *expression) error {
	switch e.name {
	case "masq":
		flags := e.num(unix.NFTA_MASQ_FLAGS)
		if !e.only(unix.NFTA_MASQ_FLAGS) || flags&^unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY != 0 {
			return errForeign
		}
		return d.emit(nft.Masquerade{FullyRandom: flags != 0}, nil)
	case "reject":
		got := [2]uint32{e.num(unix.NFTA_REJECT_TYPE), e.num(unix.NFTA_REJECT_ICMP_CODE)}
		for with, v := range rejects {
			if v == got {
				return d.emit(nft.Reject{With: with}, nil)
			}
		}
	case "notrack":
		return d.emit(nft.Notrack{}, nil)
	case "counter":
		return d.emit(nft.Counter{}, nil)
	}
	return errForeign
}

// emit appends a statement whose key looks at these fields. A comparison of nfproto before it belongs to it when the encoder makes one
// of its own there.
func (d *ruleDecoder) emit(s nft.Statement, key []nft.Expr) error {
	for _, k := range key {
		i := -1
		switch k.Field {
		case nft.IPSaddr, nft.IPDaddr, nft.HashSaddr:
			i = 0
		case nft.IP6Saddr, nft.IP6Daddr, nft.HashSaddr6:
			i = 1
		}
		if i < 0 || d.family != nft.INet || d.implicit[i] {
			continue
		}
		want := uint32(nft.ProtoIPv4)
		if i == 1 {
			want = nft.ProtoIPv6
		}
		if d.check == nil || d.check.Num != want || d.check.Not {
			return errForeign
		}
		d.check, d.implicit[i] = nil, true
	}
	d.flush()
	d.out = append(d.out, s)
	d.loads, d.values, d.mask, d.xor, d.mapped = nil, nil, nil, nil, nil
	return nil
}

// flush emits a comparison of nfproto that turned out to be a statement of its own.
func (d *ruleDecoder) flush() {
	if d.check != nil {
		d.out = append(d.out, *d.check)
		d.check = nil
	}
}

func (d *ruleDecoder) load(e *expression) error {
	l, ok := decodeLoad(e)
	if !ok || d.mask != nil || d.mapped != nil {
		return errForeign
	}
	d.loads = append(d.loads, l)
	return nil
}

func decodeLoad(e *expression) (l load, ok bool) {
	switch e.name {
	case "meta":
		l.expr.Field, ok = fieldOf(metaKeys, e.num(unix.NFTA_META_KEY))
		l.word = e.word(unix.NFTA_META_DREG)
		ok = ok && e.only(unix.NFTA_META_KEY, unix.NFTA_META_DREG)
	case "ct":
		l.expr.Field, ok = fieldOf(ctKeys, e.num(unix.NFTA_CT_KEY))
		l.word = e.word(unix.NFTA_CT_DREG)
		ok = ok && e.only(unix.NFTA_CT_KEY, unix.NFTA_CT_DREG)
	case "payload":
		l.expr.Field, ok = fieldOf(payloads, payload{e.num(unix.NFTA_PAYLOAD_BASE), e.num(unix.NFTA_PAYLOAD_OFFSET), e.num(unix.NFTA_PAYLOAD_LEN)})
		l.word = e.word(unix.NFTA_PAYLOAD_DREG)
		ok = ok && e.only(unix.NFTA_PAYLOAD_BASE, unix.NFTA_PAYLOAD_OFFSET, unix.NFTA_PAYLOAD_LEN, unix.NFTA_PAYLOAD_DREG)
	case "fib":
		l.expr.Field, ok = fieldOf(fibFlags, e.num(unix.NFTA_FIB_FLAGS))
		l.word = e.word(unix.NFTA_FIB_DREG)
		ok = ok && e.num(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_ADDRTYPE
	case "numgen":
		l.expr = nft.Expr{Field: nft.Random, Mod: e.num(unix.NFTA_NG_MODULUS)}
		l.word = e.word(unix.NFTA_NG_DREG)
		ok = e.num(unix.NFTA_NG_TYPE) == unix.NFT_NG_RANDOM && e.num(unix.NFTA_NG_OFFSET) == 0
	}
	return l, ok && l.word >= 0
}

// fieldOf finds the field that has the value. The tables are small.
func fieldOf[V comparable](table map[nft.Field]V, v V) (nft.Field, bool) {
	for f, x := range table {
		if x == v {
			return f, true
		}
	}
	return 0, false
}
