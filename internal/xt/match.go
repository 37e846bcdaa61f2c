package xt

import (
	"strconv"
	"strings"
)

// Match is a match extension (iptables-extensions(8)): one of Comment, Ports, Mark, AddrType, Conntrack, Statistic and Raw.
type Match interface {
	// String is the match as iptables-save prints it, from "-m" on.
	String() string
	// match says whether the packet passes.
	match(p *Packet) Answer
}

// Comment is a remark of up to 255 bytes; it matches everything.
type Comment string

// String is the match as iptables-save prints it.
func (c Comment) String() string { return "-m comment --comment " + quoteComment(string(c)) }

// Ports matches the ports of a protocol: "tcp", "udp", "sctp". The rule must have the same protocol.
type Ports struct {
	Proto    string
	Src, Dst PortRange
}

// PortRange is ports First to Last; the zero PortRange is any.
type PortRange struct {
	First, Last uint16
	Not         bool
}

// DPort returns the match of one destination port.
func DPort(proto string, port uint16) Ports {
	return Ports{Proto: proto, Dst: PortRange{First: port, Last: port}}
}

// Zero reports whether the range is any port.
func (p PortRange) Zero() bool { return p.First == 0 && p.Last == 0 }

// String is the match as iptables-save prints it.
func (p Ports) String() string {
	return "-m " + p.Proto + p.Src.text("--sport") + p.Dst.text("--dport")
}

func (p PortRange) text(option string) string {
	if p.Zero() {
		return ""
	}
	t := " " + option + " " + strconv.Itoa(int(p.First))
	if p.Not {
		t = " !" + t
	}
	if p.Last != p.First {
		t += ":" + strconv.Itoa(int(p.Last))
	}
	return t
}

// Mark matches packets whose mark ANDed with Mask is Value.
type Mark struct {
	Value, Mask uint32
	Not         bool
}

// String is the match as iptables-save prints it.
func (m Mark) String() string {
	t := "-m mark"
	if m.Not {
		t += " !"
	}
	t += " --mark " + hex(m.Value)
	if m.Mask != 0xffffffff {
		t += "/" + hex(m.Mask)
	}
	return t
}

func hex(n uint32) string { return "0x" + strconv.FormatUint(uint64(n), 16) }

// AddrType matches the kind of the addresses: "LOCAL", "UNICAST", "BROADCAST", "MULTICAST", ..., several joined by commas.
type AddrType struct {
	Src, Dst       string // "" is any
	NotSrc, NotDst bool
}

// String is the match as iptables-save prints it.
func (a AddrType) String() string {
	b := appendOption([]byte("-m addrtype"), "--src-type", a.Src, a.NotSrc)
	return string(appendOption(b, "--dst-type", a.Dst, a.NotDst))
}

// Conntrack matches the state of the connection: INVALID, NEW, RELATED, ESTABLISHED, UNTRACKED, SNAT, DNAT, several joined by
// commas in this order.
type Conntrack struct {
	States string
	Not    bool
}

// String is the match as iptables-save prints it.
func (c Conntrack) String() string {
	return string(appendOption([]byte("-m conntrack"), "--ctstate", c.States, c.Not))
}

// Statistic matches a random share of packets, or with Every the Packet-th of every Every packets.
type Statistic struct {
	// Random is the probability in units of 2^-31, as the kernel holds it; see Probability.
	Random        uint32
	Every, Packet uint32
	Not           bool
}

// one is probability 1.
const one = 1 << 31

// Probability returns the match of a share p of packets, 0 < p <= 1.
func Probability(p float64) Statistic { return Statistic{Random: uint32(p*one + 0.5)} }

// String is the match as iptables-save prints it.
func (s Statistic) String() string {
	not := ""
	if s.Not {
		not = " !"
	}
	if s.Every > 0 {
		return "-m statistic --mode nth" + not + " --every " + strconv.FormatUint(uint64(s.Every), 10) +
			" --packet " + strconv.FormatUint(uint64(s.Packet), 10)
	}
	return "-m statistic --mode random" + not + " --probability " + strconv.FormatFloat(float64(s.Random)/one, 'f', 11, 64)
}

// Raw is a match, or several options, that the package does not know by type, as text.
type Raw string

// String is the text.
func (r Raw) String() string { return string(r) }

// has reports whether the comma-separated list holds the word.
func has(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}
