package nft

import "net/netip"

// Statement is one step of a rule: a match, which ends the rule when it fails, or something done to the packet.
// It is one of Match, Lookup, VMap, DNAT, KeepSource, Masquerade, Reject, Notrack, Counter, SetMark, Update, Verdict and Foreign.
type Statement interface {
	String() string // as nft(8) writes it
	statement()
}

// Field is something of a packet that a rule can look at.
type Field uint8

// The fields, with their nft(8) words.
const (
	IIFName       Field = iota + 1 // iifname
	OIFName                        // oifname
	MetaMark                       // meta mark
	L4Proto                        // meta l4proto
	NFProto                        // meta nfproto; 2 is IPv4, 10 is IPv6
	PktType                        // meta pkttype; 0 host, 1 broadcast, 2 multicast, 3 other
	FibDaddrType                   // fib daddr type; the RTN_ numbers: 1 unicast, 2 local, 3 broadcast, 5 multicast
	FibSaddrType                   // fib saddr type
	FibDaddrHere                   // fib daddr . iif type: of the interface the packet came by, in the tables of its VRF
	IPSaddr                        // ip saddr; like all ip fields it matches IPv4 packets only
	IPDaddr                        // ip daddr
	IP6Saddr                       // ip6 saddr
	IP6Daddr                       // ip6 daddr
	ThSport                        // th sport
	ThDport                        // th dport
	CtState                        // ct state; bits of CtNew and so on
	CtStatus                       // ct status; bits of CtDNAT and so on
	CtDirection                    // ct direction; 0 original, 1 reply
	CtMark                         // ct mark
	Random                         // numgen random mod N: a random number from 0 to N-1
	VXLANFlags                     // @th,64,8: the flags of a VXLAN packet (RFC 7348, 5)
	VXLANReserved                  // @th,120,8: the byte behind its network identifier, which is 0
	VNI                            // @th,96,24: the VXLAN network identifier of a UDP packet (RFC 7348, 5)
	InnerType                      // @th,224,16: the EtherType of the frame in a VXLAN packet
	InnerSaddr                     // @th,336,32: the IPv4 source of the frame, whatever its EtherType
	InnerSaddr6                    // @th,304,128: the IPv6 source of the frame, whatever its EtherType
	HashSaddr                      // jhash ip saddr mod N seed S: a number from 0 to N-1, the same for all packets of an address
	HashSaddr6                     // jhash ip6 saddr mod N seed S

	lastField = HashSaddr6
)

// The bits of CtState (linux/netfilter/nf_conntrack_common.h).
const (
	CtInvalid     = 1
	CtEstablished = 2
	CtRelated     = 4
	CtNew         = 8
	CtUntracked   = 64
)

// The bits of CtStatus.
const (
	CtConfirmed = 1 << 3
	CtSNAT      = 1 << 4
	CtDNAT      = 1 << 5
)

// The values of NFProto.
const (
	ProtoIPv4 = 2
	ProtoIPv6 = 10
)

// The values of L4Proto that have names.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
	SCTP   = 132
)

// The values of VXLANFlags that Linux takes: with a network identifier, and with a group policy besides (draft-smith-vxlan-group-policy).
const (
	VXLANFlagVNI  = 0x08
	VXLANFlagsGBP = 0x88
)

// The values of InnerType that have names.
const (
	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd
)

// TypeUnicast is their value for addresses of others (RTN_UNICAST).
const TypeUnicast = 1

// TypeLocal is the value of FibDaddrType and FibSaddrType for the host's own addresses (RTN_LOCAL).
const TypeLocal = 2

// Expr is one component of the key of a lookup.
type Expr struct {
	Field Field
	Mod   uint32 // Random, HashSaddr, HashSaddr6: how many numbers there are
	Seed  uint32 // HashSaddr, HashSaddr6
	Bits  uint8  // InnerSaddr, InnerSaddr6: how many bits of the address count, the first ones; 0 is all
}

// Hashed is the field that a hash is made of, 0 for fields that are no hash.
func (f Field) Hashed() Field {
	switch f {
	case HashSaddr:
		return IPSaddr
	case HashSaddr6:
		return IP6Saddr
	}
	return 0
}

// Match compares a field with a value.
//
// An address matches a prefix. An interface name that ends in "*" matches by its beginning. CtState and CtStatus match when any
// of the value's bits is set; Not is not for them.
type Match struct {
	Field  Field
	Not    bool
	Mask   uint32       // MetaMark, CtMark: compare these bits only; 0 is all
	Num    uint32       // numbers and bits
	Prefix netip.Prefix // addresses
	Name   string       // interface names
}

// Lookup matches when the key is in a set.
type Lookup struct {
	Key []Expr
	Not bool
	Set string
}

// VMap takes the verdict from a verdict map; a key that is not in it goes on to the next statement.
type VMap struct {
	Key []Expr
	Map string
}

// DNAT changes the destination, to To or to the address and port a map holds for a key; a key that is not in the map ends the rule.
type DNAT struct {
	V6  bool // the new destination is an IPv6 one
	To  netip.AddrPort
	Key []Expr
	Map string
}

// KeepSource decides that the source stays as it is: it is a source NAT to the address the packet has. Where an accept ends only the base
// chain it is in, this ends all: a connection's source is decided once, so no chain after this one changes it.
type KeepSource struct {
	V6 bool // of IPv6 packets
}

// Masquerade changes the source to the address of the device the packet leaves by.
type Masquerade struct {
	FullyRandom bool // the source port is chosen at random, not kept if possible
}

// RejectWith is what a Reject answers.
type RejectWith string

// The answers.
const (
	PortUnreachable  RejectWith = "icmpx type port-unreachable"
	AdminProhibited  RejectWith = "icmpx type admin-prohibited"
	TCPReset         RejectWith = "tcp reset"
	HostUnreachable  RejectWith = "icmpx type host-unreachable"
	RouteUnreachable RejectWith = "icmpx type no-route"
)

// Reject drops the packet and answers the sender. It ends the walk.
type Reject struct {
	With RejectWith
}

// Notrack keeps connection tracking from seeing the packet.
type Notrack struct{}

// Counter counts packets and bytes. What it has counted is no part of the value.
type Counter struct{}

// SetMark changes the packet's mark to mark &^ Mask ^ Value.
type SetMark struct {
	Mask, Value uint32
}

// Update adds an element to a dynamic set or map, or starts its lifetime anew when it is there; the value of an element
// that is there stays.
type Update struct {
	Set     string
	Key     []Expr
	Timeout uint32 // seconds, 0: the set's
	Data    []Expr // maps: the value, from the packet
	To      netip.AddrPort
}

// VerdictKind says what happens to the packet next.
type VerdictKind uint8

// The verdicts. A statement without verdict continues.
const (
	Continue VerdictKind = iota
	Accept
	Drop
	Return
	Jump
	Goto
)

// Verdict is a verdict, as statement or as value of a verdict map.
type Verdict struct {
	Kind  VerdictKind
	Chain string // Jump, Goto
}

// Foreign is a statement found in the kernel that this package does not know. No plan has one, so Diff removes its rule.
type Foreign struct {
	Text string
}

func (Match) statement()      {}
func (Lookup) statement()     {}
func (VMap) statement()       {}
func (DNAT) statement()       {}
func (KeepSource) statement() {}
func (Masquerade) statement() {}
func (Reject) statement()     {}
func (Notrack) statement()    {}
func (Counter) statement()    {}
func (SetMark) statement()    {}
func (Update) statement()     {}
func (Verdict) statement()    {}
func (Foreign) statement()    {}
