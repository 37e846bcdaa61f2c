package xt

import (
	"net/netip"
	"strings"
)

// Rule is one rule: what it looks at, and what it does. The zero Rule matches every packet and does nothing but count.
type Rule struct {
	Src, Dst Address
	In, Out  Iface
	Proto    Proto
	Match    []Match // in the order of the -m options
	Target   Target  // nil: none

	// Last says, in a plan, that the rule goes to the end of a chain that isn't ours; else to its beginning. It's not printed.
	Last bool
	// First says, in a plan, that the rule must stand before every rule of others: Diff puts it there again where others were put before it.
	First bool
}

// Address is a source or destination; the zero Address is any.
type Address struct {
	Prefix netip.Prefix
	Not    bool
}

// IP returns the Address of a single host.
func IP(a netip.Addr) Address { return Address{Prefix: netip.PrefixFrom(a, a.BitLen())} }

// Net returns the Address of a network.
func Net(p netip.Prefix) Address { return Address{Prefix: p} }

// NotNet returns everything but a network.
func NotNet(p netip.Prefix) Address { return Address{Prefix: p, Not: true} }

// Iface is an interface by name, or by the beginning of the name when it ends in "+"; the zero Iface is any.
type Iface struct {
	Name string
	Not  bool
}

// Proto is a protocol by name ("tcp", "udp", "sctp", "icmp", "ipv6-icmp") or number; the zero Proto is any.
type Proto struct {
	Name string
	Not  bool
}

// String is the rule as it follows "-A CHAIN" in iptables-save: every option is led by a space.
func (r Rule) String() string {
	b := make([]byte, 0, 160)
	b = r.Src.append(b, "-s")
	b = r.Dst.append(b, "-d")
	b = appendOption(b, "-i", r.In.Name, r.In.Not)
	b = appendOption(b, "-o", r.Out.Name, r.Out.Not)
	b = appendOption(b, "-p", r.Proto.Name, r.Proto.Not)
	for _, m := range r.Match {
		b = append(append(b, ' '), m.String()...)
	}
	if r.Target != nil {
		b = append(append(b, ' '), r.Target.String()...)
	}
	return string(b)
}

func (a Address) append(b []byte, option string) []byte {
	if !a.Prefix.IsValid() || a.Prefix.Bits() == 0 && !a.Not {
		return b
	}
	if a.Not {
		b = append(b, " !"...)
	}
	b = append(append(append(b, ' '), option...), ' ')
	return a.Prefix.Masked().AppendTo(b)
}

func appendOption(b []byte, option, value string, not bool) []byte {
	if value == "" {
		return b
	}
	if not {
		b = append(b, " !"...)
	}
	b = append(append(append(b, ' '), option...), ' ')
	return append(b, quote(value)...)
}

// plain are the characters iptables-save leaves unquoted.
const plain = "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// maxComment is the longest comment in bytes (XT_MAX_COMMENT_LEN less the final NUL).
const maxComment = 255

// quoteComment quotes as iptables-save does. A line cannot hold control characters: they become spaces.
func quoteComment(s string) string {
	if len(s) > maxComment {
		s = s[:maxComment]
	}
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return quoted(s)
}

func quoted(s string) string {
	b := make([]byte, 0, len(s)+8)
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\' || c == '\'':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// quote quotes only what would not be read back as one word.
func quote(s string) string {
	odd := func(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune("\"'\\!", c) }
	if s == "" || strings.ContainsFunc(s, odd) {
		return quoted(s)
	}
	return s
}
