package nft

import (
	"net/netip"
	"strconv"
	"strings"
)

// typeWords are the words of the types (nft describe). NumGen has none: sets with it are declared with typeof.
var typeWords = [...]string{
	IPv4Addr: "ipv4_addr", IPv6Addr: "ipv6_addr", InetProto: "inet_proto", InetService: "inet_service", IfName: "ifname",
	NumGen: "",
}

// String is the type's word, "" for NumGen.
func (t Type) String() string { return typeWords[t] }

// typeofWords are expressions of each type, for typeof.
var typeofWords = [...]string{
	IPv4Addr: "ip daddr", IPv6Addr: "ip6 daddr", InetProto: "meta l4proto", InetService: "th dport", IfName: "iifname",
	NumGen: "numgen random mod 65536",
}

// fields says of each field its words and its type.
var fields = [...]struct {
	words string
	typ   Type
}{
	IIFName:       {"iifname", IfName},
	OIFName:       {"oifname", IfName},
	MetaMark:      {"meta mark", 0},
	L4Proto:       {"meta l4proto", InetProto},
	NFProto:       {"meta nfproto", 0},
	PktType:       {"meta pkttype", 0},
	FibDaddrType:  {"fib daddr type", 0},
	FibSaddrType:  {"fib saddr type", 0},
	FibDaddrHere:  {"fib daddr . iif type", 0},
	IPSaddr:       {"ip saddr", IPv4Addr},
	IPDaddr:       {"ip daddr", IPv4Addr},
	IP6Saddr:      {"ip6 saddr", IPv6Addr},
	IP6Daddr:      {"ip6 daddr", IPv6Addr},
	ThSport:       {"th sport", InetService},
	ThDport:       {"th dport", InetService},
	CtState:       {"ct state", 0},
	CtStatus:      {"ct status", 0},
	CtDirection:   {"ct direction", 0},
	CtMark:        {"ct mark", 0},
	Random:        {"numgen random mod", NumGen},
	VXLANFlags:    {"@th,64,8", 0},
	VXLANReserved: {"@th,120,8", 0},
	VNI:           {"@th,96,24", 0},
	InnerType:     {"@th,224,16", 0},
	InnerSaddr:    {"@th,336,32", IPv4Addr},
	InnerSaddr6:   {"@th,304,128", IPv6Addr},
	HashSaddr:     {"jhash ip saddr mod", NumGen},
	HashSaddr6:    {"jhash ip6 saddr mod", NumGen},
}

// String is the field's words in nft(8).
func (f Field) String() string { return fields[f].words }

// Type is the type the field has as component of a key, 0 for fields that cannot be one.
func (f Field) Type() Type { return fields[f].typ }

// String is the expression as nft(8) writes it.
func (e Expr) String() string {
	if e.Field == Random {
		return "numgen random mod " + strconv.FormatUint(uint64(e.Mod), 10)
	}
	if e.Field.Hashed() != 0 {
		return e.Field.String() + " " + strconv.FormatUint(uint64(e.Mod), 10) + " seed " + hex(e.Seed)
	}
	if e.Bits != 0 {
		return e.Field.String() + " & " + maskText(e)
	}
	return e.Field.String()
}

// maskText is the mask of the first bits, as number.
func maskText(e Expr) string {
	mask := []byte("0x")
	for i := range e.Field.Type().Len() * 2 {
		ones := min(max(int(e.Bits)-4*i, 0), 4)
		mask = append(mask, "08cef"[ones])
	}
	return string(mask)
}

// bitsOfMask is the opposite of maskText; ok is false for what it does not print.
func bitsOfMask(f Field, text string) (bits uint8, ok bool) {
	for n := 1; n < f.Type().Len()*8; n++ {
		if maskText(Expr{Field: f, Bits: uint8(n)}) == text {
			return uint8(n), true
		}
	}
	return 0, false
}

// word is a named number.
type word struct {
	name string
	num  uint32
}

var protoWords = []word{{"icmp", ICMP}, {"tcp", TCP}, {"udp", UDP}, {"ipv6-icmp", ICMPv6}, {"sctp", SCTP}}

// numberWords are the named numbers of the fields that have them.
var numberWords = map[Field][]word{
	L4Proto:      protoWords,
	NFProto:      {{"ipv4", ProtoIPv4}, {"ipv6", ProtoIPv6}},
	PktType:      {{"host", 0}, {"broadcast", 1}, {"multicast", 2}, {"other", 3}},
	FibDaddrType: fibWords,
	FibSaddrType: fibWords,
	FibDaddrHere: fibWords,
	CtDirection:  {{"original", 0}, {"reply", 1}},
	VXLANFlags:   {{"0x08", VXLANFlagVNI}, {"0x88", VXLANFlagsGBP}},
	InnerType:    {{"0x0800", EtherIPv4}, {"0x86dd", EtherIPv6}},
}

var fibWords = []word{{"unicast", TypeUnicast}, {"local", TypeLocal}, {"broadcast", 3}, {"anycast", 4}, {"multicast", 5}}

// bitWords are the named bits of the fields that are sets of bits.
var bitWords = map[Field][]word{
	CtState:  {{"invalid", CtInvalid}, {"established", CtEstablished}, {"related", CtRelated}, {"new", CtNew}, {"untracked", CtUntracked}},
	CtStatus: {{"confirmed", CtConfirmed}, {"snat", CtSNAT}, {"dnat", CtDNAT}},
}

func wordOf(words []word, num uint32) string {
	for _, w := range words {
		if w.num == num {
			return w.name
		}
	}
	return strconv.FormatUint(uint64(num), 10)
}

// comparable reports whether a Match can look at the field: the others are components of keys only.
func (f Field) comparable() bool {
	return f != Random && f != InnerSaddr && f != InnerSaddr6 && f.Hashed() == 0
}

// isBits reports whether the field is a set of bits.
func (f Field) isBits() bool { return f == CtState || f == CtStatus }

// bitsText is the bits by name, joined with commas.
func bitsText(words []word, num uint32) string {
	var out []string
	for _, w := range words {
		if num&w.num != 0 {
			out = append(out, w.name)
			num &^= w.num
		}
	}
	if num != 0 || len(out) == 0 {
		out = append(out, "0x"+strconv.FormatUint(uint64(num), 16))
	}
	return strings.Join(out, ",")
}

func hex(n uint32) string {
	s := strconv.FormatUint(uint64(n), 16)
	return "0x" + "00000000"[len(s):] + s
}

// appendValue appends a component as nft(8) writes it.
func appendValue(b []byte, t Type, v Value) []byte {
	switch t {
	case IPv4Addr, IPv6Addr:
		return v.Addr.AppendTo(b)
	case InetProto:
		return append(b, wordOf(protoWords, v.Num)...)
	case IfName:
		return append(b, quote(v.Name)...)
	}
	return strconv.AppendUint(b, uint64(v.Num), 10)
}

// Text is the tuple as nft(8) writes it, components joined with " . ".
func (t Tuple) Text(types []Type) string { return string(t.appendText(nil, types)) }

func (t Tuple) appendText(b []byte, types []Type) []byte {
	for i, v := range t.Values(types) {
		if i > 0 {
			b = append(b, " . "...)
		}
		b = appendValue(b, types[i], v)
	}
	return b
}

// prefixText is the prefix as nft(8) writes it: without length when it is a single address.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
