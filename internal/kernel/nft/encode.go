package nft

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// unit is a part of a transaction that is refused or taken as a whole: one op, or some of the elements of one.
type unit struct {
	op       *nft.Op
	elements []nft.Element // KindElements: those of the op that this unit is about
	size     uint32        // KindSet: see room
}

// families are the kernel's numbers of the families.
var families = map[nft.Family]uint8{nft.INet: unix.NFPROTO_INET, nft.IPv4: unix.NFPROTO_IPV4, nft.IPv6: unix.NFPROTO_IPV6}

// hooks are the kernel's numbers of the hooks.
var hooks = map[nft.Hook]uint32{
	nft.Prerouting: unix.NF_INET_PRE_ROUTING, nft.Input: unix.NF_INET_LOCAL_IN, nft.Forward: unix.NF_INET_FORWARD,
	nft.Output: unix.NF_INET_LOCAL_OUT, nft.Postrouting: unix.NF_INET_POST_ROUTING,
}

// Elements go in messages of at most this many: the list of a message is an attribute, whose length is 16 bits.
const chunk = 400

// units cuts ops into units.
func units(ops []nft.Op) []unit {
	out := make([]unit, 0, len(ops))
	sizes := roomFor(ops)
	for i := range ops {
		op := &ops[i]
		if op.Kind != nft.KindElements {
			u := unit{op: op, size: op.Set.Size}
			if size := sizes[setName(op)]; size > 0 && op.Kind == nft.KindSet && op.Verb == nft.Add {
				u.size = size
			}
			out = append(out, u)
			continue
		}
		for part := range slices.Chunk(op.Set.Elements, chunk) {
			out = append(out, unit{op: op, elements: part})
		}
	}
	return out
}

// order is the order in which units are encoded: rules before the elements of the maps that they look up. When a rule is bound to a map, the
// kernel goes through all that is in the map. Within a transaction nobody sees the order; units that go in several have one that does no harm.
func order(all []unit) []int {
	out := make([]int, 0, len(all))
	var rest []int
	for i, u := range all {
		switch {
		case u.op.Kind == nft.KindElements, len(rest) > 0 && (u.op.Kind != nft.KindRules || len(u.op.Chain.Rules) == 0):
			rest = append(rest, i)
		default:
			out = append(out, i)
		}
	}
	return append(out, rest...)
}

const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// batch encodes units as one transaction.
type batch struct {
	b     buf
	seq   uint32
	first uint32        // sequence number of the first message
	owner []int         // unit of each message, by its number from first
	setID uint32        // numbers of the sets made in the transaction
	bad   map[int]error // units that can't be encoded
}

func newBatch(seq uint32, all []unit) *batch {
	t := &batch{seq: seq, first: seq, bad: map[int]error{}}
	t.b = make(buf, 0, 4096+size(all))
	t.frame(unix.NFNL_MSG_BATCH_BEGIN)
	for _, i := range order(all) {
		start, messages, seq := len(t.b), len(t.owner), t.seq
		if err := t.unit(i, &all[i]); err != nil {
			t.bad[i] = err
			t.b, t.owner, t.seq = t.b[:start], t.owner[:messages], seq
		}
	}
	t.frame(unix.NFNL_MSG_BATCH_END)
	return t
}

// size guesses the bytes a transaction takes.
func size(all []unit) int {
	n := 0
	for _, u := range all {
		n += 128 + 64*len(u.elements)
	}
	return n
}

// frame begins or ends the transaction. The end is acknowledged by the last message's errors or their absence.
func (t *batch) frame(typ uint16) {
	at := t.b.header(typ, 0, t.seq, unix.AF_UNSPEC)
	t.b[len(t.b)-1] = unix.NFNL_SUBSYS_NFTABLES // res_id, network byte order
	t.b.close(at)
	t.owner = append(t.owner, -1)
	t.seq++
}

// message appends a message of unit i; body appends its attributes.
func (t *batch) message(i int, typ, flags uint16, f nft.Family, body func(b *buf)) {
	at := t.b.header(subsystem|typ, flags, t.seq, families[f])
	body(&t.b)
	t.b.close(at)
	t.owner = append(t.owner, i)
	t.seq++
}

func (t *batch) unit(i int, u *unit) error {
	op := u.op
	if families[op.Family] == 0 || op.Table == "" {
		return fmt.Errorf("table %q of family %q: want a name and one of inet, ip, ip6", op.Table, op.Family)
	}
	switch op.Kind {
	case nft.KindTable:
		typ, flags := verb(op.Verb, unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE)
		t.message(i, typ, flags, op.Family, func(b *buf) { b.str(unix.NFTA_TABLE_NAME, op.Table) })
	case nft.KindChain:
		typ, flags := verb(op.Verb, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN)
		t.message(i, typ, flags, op.Family, func(b *buf) { chain(b, op) })
	case nft.KindRules:
		return t.rules(i, op)
	case nft.KindSet:
		typ, flags := verb(op.Verb, unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET)
		t.setID++
		t.message(i, typ, flags, op.Family, func(b *buf) { set(b, op, u.size, t.setID) })
	case nft.KindElements:
		if err := fits(u); err != nil {
			return err
		}
		if op.Verb != nft.Add {
			t.elements(i, u, unix.NFT_MSG_DELSETELEM, 0)
		}
		if op.Verb != nft.Del {
			t.elements(i, u, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
		}
	}
	return nil
}

// fits checks that the elements have the lengths of the set's types.
func fits(u *unit) error {
	s := &u.op.Set
	for i := range u.elements {
		e := &u.elements[i]
		switch {
		case e.Key == "" && u.op.Verb == nft.Del: // the element for all other keys, which no plan has
		case len(s.Key) == 0 || !e.Key.Fits(s.Key) || e.KeyEnd != "" && !e.KeyEnd.Fits(s.Key):
			return fmt.Errorf("key of %d bytes does not fit set %s", len(e.Key), s.Name)
		case u.op.Verb != nft.Del && !e.Data.Fits(s.Data):
			return fmt.Errorf("value of %d bytes does not fit map %s", len(e.Data), s.Name)
		}
	}
	return nil
}

func verb(v nft.Verb, add, del uint16) (typ, flags uint16) {
	if v == nft.Del {
		return del, 0
	}
	return add, unix.NLM_F_CREATE
}

func chain(b *buf, op *nft.Op) {
	b.str(unix.NFTA_CHAIN_TABLE, op.Table)
	b.str(unix.NFTA_CHAIN_NAME, op.Chain.Name)
	base := op.Chain.Base
	if op.Verb == nft.Del || base == (nft.Base{}) {
		return
	}
	at := b.begin(unix.NFTA_CHAIN_HOOK)
	b.u32(unix.NFTA_HOOK_HOOKNUM, hooks[base.Hook])
	b.u32(unix.NFTA_HOOK_PRIORITY, uint32(int32(base.Priority)))
	b.end(at)
	policy := uint32(1) // NF_ACCEPT
	if base.Drop {
		policy = 0
	}
	b.u32(unix.NFTA_CHAIN_POLICY, policy)
	b.str(unix.NFTA_CHAIN_TYPE, string(base.Type))
}

// rules empties the chain and gives it its rules.
func (t *batch) rules(i int, op *nft.Op) error {
	t.message(i, unix.NFT_MSG_DELRULE, 0, op.Family, func(b *buf) {
		b.str(unix.NFTA_RULE_TABLE, op.Table)
		b.str(unix.NFTA_RULE_CHAIN, op.Chain.Name)
	})
	var err error
	for _, r := range op.Chain.Rules {
		t.message(i, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, op.Family, func(b *buf) {
			b.str(unix.NFTA_RULE_TABLE, op.Table)
			b.str(unix.NFTA_RULE_CHAIN, op.Chain.Name)
			at := b.begin(unix.NFTA_RULE_EXPRESSIONS)
			e := ruleEncoder{b: b, family: op.Family}
			for _, s := range r.Statements {
				if err == nil {
					err = e.statement(s)
				}
			}
			b.end(at)
			if r.Comment != "" {
				b.attr(unix.NFTA_RULE_USERDATA, comment(r.Comment))
			}
		})
	}
	return err
}

// maxComment is the longest comment nft(8) allows.
const maxComment = 128

// comment is the text in the form nft(8) keeps it: type 0, length, text with a zero byte.
func comment(s string) []byte {
	s = s[:min(len(s), maxComment)]
	return append(append([]byte{0, byte(len(s) + 1)}, s...), 0)
}

// typeIDs are the numbers by which nft(8) knows the types of keys; the kernel keeps them for it. A number of numgen goes as a mark: it
// is held the same way, and nft 1.0.6 crashes when it lists a key with its type "integer".
var typeIDs = [...]uint32{
	nft.IPv4Addr: 7, nft.IPv6Addr: 8, nft.InetProto: 12, nft.InetService: 13, nft.IfName: 41, nft.NumGen: 19,
}

const (
	typeBits     = 6 // of one component in the number of a concatenation
	typeVerdict  = 0xffffff00
	flagInterval = unix.NFT_SET_INTERVAL
	flagMap      = unix.NFT_SET_MAP
	flagTimeout  = unix.NFT_SET_TIMEOUT
	flagDynamic  = unix.NFT_SET_EVAL
	flagConcat   = 0x80 // NFT_SET_CONCAT
	descConcat   = 2    // NFTA_SET_DESC_CONCAT
	fieldLen     = 1    // NFTA_SET_FIELD_LEN
)

func typeID(types []nft.Type) (id uint32) {
	for _, t := range types {
		id = id<<typeBits | typeIDs[t]
	}
	return id
}

func typesLen(types []nft.Type) (n uint32) {
	for _, t := range types {
		n += uint32(align(t.Len()))
	}
	if len(types) == 1 {
		n = uint32(types[0].Len())
	}
	return n
}

// setFlags are the flags of a set.
func setFlags(s nft.Set) (f uint32) {
	for _, c := range []struct {
		on   bool
		flag uint32
	}{
		{s.Interval, flagInterval},
		{s.Interval && len(s.Key) > 1, flagConcat},
		{s.Map(), flagMap},
		{s.Dynamic, flagDynamic},
		{s.Dynamic || s.Timeout != 0, flagTimeout},
	} {
		if c.on {
			f |= c.flag
		}
	}
	return f
}

func set(b *buf, op *nft.Op, size, id uint32) {
	s := op.Set
	b.str(unix.NFTA_SET_TABLE, op.Table)
	b.str(unix.NFTA_SET_NAME, s.Name)
	if op.Verb == nft.Del {
		return
	}
	b.u32(unix.NFTA_SET_ID, id)
	b.u32(unix.NFTA_SET_FLAGS, setFlags(s))
	b.u32(unix.NFTA_SET_KEY_TYPE, typeID(s.Key))
	b.u32(unix.NFTA_SET_KEY_LEN, typesLen(s.Key))
	switch {
	case s.Verdicts:
		b.u32(unix.NFTA_SET_DATA_TYPE, typeVerdict)
		b.u32(unix.NFTA_SET_DATA_LEN, 0)
	case len(s.Data) > 0:
		b.u32(unix.NFTA_SET_DATA_TYPE, typeID(s.Data))
		b.u32(unix.NFTA_SET_DATA_LEN, typesLen(s.Data))
	}
	if s.Timeout != 0 {
		b.u64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout)*1000)
	}
	desc := b.begin(unix.NFTA_SET_DESC)
	if size != 0 {
		b.u32(unix.NFTA_SET_DESC_SIZE, size)
	}
	if s.Interval && len(s.Key) > 1 {
		list := b.begin(descConcat)
		for _, t := range s.Key {
			field := b.begin(unix.NFTA_LIST_ELEM)
			b.u32(fieldLen, uint32(t.Len()))
			b.end(field)
		}
		b.end(list)
	}
	b.end(desc)
}

const keyEnd = 10 // NFTA_SET_ELEM_KEY_END

// elements appends one message for the elements of a unit. For deletion keys are enough.
func (t *batch) elements(i int, u *unit, typ, flags uint16) {
	s := &u.op.Set
	t.message(i, typ, flags, u.op.Family, func(b *buf) {
		b.str(unix.NFTA_SET_ELEM_LIST_TABLE, u.op.Table)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		list := b.begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		concat := len(s.Key) > 1
		for i := range u.elements {
			e := &u.elements[i]
			if e.Key == "" {
				b.catchAll()
				continue
			}
			if s.Interval && !concat {
				b.interval(s, e)
				continue
			}
			at := b.begin(unix.NFTA_LIST_ELEM)
			b.tuple(unix.NFTA_SET_ELEM_KEY, e.Key, s.Key)
			if s.Interval {
				b.tuple(keyEnd, max(e.KeyEnd, e.Key), s.Key)
			}
			if typ == unix.NFT_MSG_NEWSETELEM {
				b.value(s, e)
			}
			b.end(at)
		}
		b.end(list)
	})
}

func (b *buf) tuple(typ uint16, t nft.Tuple, types []nft.Type) {
	at := b.begin(typ)
	if n := int(typesLen(types)); n < len(t) {
		b.attr(unix.NFTA_DATA_VALUE, []byte(t[:n])) // a single component goes without padding
	} else {
		b.raw(unix.NFTA_DATA_VALUE, string(t))
	}
	b.end(at)
}

func (b *buf) value(s *nft.Set, e *nft.Element) {
	switch {
	case s.Verdicts:
		at := b.begin(unix.NFTA_SET_ELEM_DATA)
		verdict(b, e.Verdict)
		b.end(at)
	case len(s.Data) > 0:
		b.tuple(unix.NFTA_SET_ELEM_DATA, e.Data, s.Data)
	}
}

// interval appends a range of a set with one component: an element for its first key and one for the first key behind it.
func (b *buf) interval(s *nft.Set, e *nft.Element) {
	at := b.begin(unix.NFTA_LIST_ELEM)
	b.tuple(unix.NFTA_SET_ELEM_KEY, e.Key, s.Key)
	b.value(s, e)
	b.end(at)
	end := []byte(max(e.KeyEnd, e.Key))[:s.Key[0].Len()]
	i := len(end) - 1
	for ; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			break
		}
	}
	if i < 0 {
		return // the range reaches the last key of all
	}
	at = b.begin(unix.NFTA_LIST_ELEM)
	b.tuple(unix.NFTA_SET_ELEM_KEY, nft.Tuple(end), s.Key)
	b.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	b.end(at)
}
