package xt

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func setAddress(to *Address, value string, not bool) bool {
	if to.Prefix.IsValid() {
		return false
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		return false // a text that netip would print differently
	}
	if p = p.Masked(); p.Bits() == 0 && !not {
		return true // any address, as iptables-save leaves it out
	}
	*to = Address{Prefix: p, Not: not}
	return true
}

// option is one option of an extension with its value.
type option struct {
	name, value string
	not         bool
}

// options pairs the words after the extension's name: "! --opt value" and, when in flags, "--opt" alone.
func options(words []token, flags ...string) ([]option, bool) {
	var out []option
	for i := 0; i < len(words); {
		var o option
		if words[i].text == "!" {
			o.not = true
			if i++; i == len(words) {
				return nil, false
			}
		}
		o.name = words[i].text
		i++
		if !slices.Contains(flags, o.name) {
			if i == len(words) {
				return nil, false
			}
			o.value = words[i].text
			i++
		}
		if slices.ContainsFunc(out, func(x option) bool { return x.name == o.name }) {
			return nil, false
		}
		out = append(out, o)
	}
	return out, true
}

// parseMatch reads "-m NAME ..."; what it can't read, or would print differently, it keeps as text.
func parseMatch(words []token, text string) Match {
	opts, ok := options(words[2:])
	if !ok {
		return Raw(text)
	}
	var m Match
	switch name := words[1].text; name {
	case "comment":
		if len(opts) == 1 && opts[0].name == "--comment" {
			m = Comment(opts[0].value)
		}
	case "tcp", "udp", "sctp", "dccp", "udplite":
		m = parsePorts(name, opts)
	case "mark":
		m = parseMark(opts)
	case "addrtype":
		m = parseAddrType(opts)
	case "conntrack":
		if len(opts) == 1 && opts[0].name == "--ctstate" && opts[0].value != "" {
			m = Conntrack{States: opts[0].value, Not: opts[0].not}
		}
	case "statistic":
		m = parseStatistic(opts)
	}
	if m == nil || m.String() != text {
		return Raw(text)
	}
	return m
}

func parsePorts(proto string, opts []option) Match {
	p := Ports{Proto: proto}
	for _, o := range opts {
		r, ok := parseRange(o)
		switch {
		case ok && o.name == "--sport":
			p.Src = r
		case ok && o.name == "--dport":
			p.Dst = r
		default:
			return nil
		}
	}
	return p
}

func parseRange(o option) (PortRange, bool) {
	first, last, isRange := strings.Cut(o.value, ":")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	return PortRange{uint16(a), uint16(b), o.not}, err1 == nil && err2 == nil
}

func parseMark(opts []option) Match {
	if len(opts) != 1 || opts[0].name != "--mark" {
		return nil
	}
	v, mask, ok := parseMasked(opts[0].value)
	if !ok {
		return nil
	}
	return Mark{Value: v, Mask: mask, Not: opts[0].not}
}

// parseMasked reads "0x4000/0x4000"; without a mask all bits count.
func parseMasked(s string) (value, mask uint32, ok bool) {
	a, b, masked := strings.Cut(s, "/")
	v, err := strconv.ParseUint(a, 0, 32)
	m := uint64(math.MaxUint32)
	if err == nil && masked {
		m, err = strconv.ParseUint(b, 0, 32)
	}
	return uint32(v), uint32(m), err == nil
}

func parseAddrType(opts []option) Match {
	var a AddrType
	for _, o := range opts {
		switch {
		case o.value == "":
			return nil
		case o.name == "--src-type":
			a.Src, a.NotSrc = o.value, o.not
		case o.name == "--dst-type":
			a.Dst, a.NotDst = o.value, o.not
		default:
			return nil
		}
	}
	return a
}

func parseStatistic(opts []option) Match {
	v := map[string]option{}
	for _, o := range opts {
		v[o.name] = o
	}
	switch v["--mode"].value {
	case "random":
		p, err := strconv.ParseFloat(v["--probability"].value, 64)
		if err != nil || p < 0 || p > 1 {
			return nil
		}
		s := Probability(p)
		s.Not = v["--probability"].not
		return s
	case "nth":
		every, err1 := strconv.ParseUint(v["--every"].value, 10, 32)
		packet, err2 := strconv.ParseUint(v["--packet"].value, 10, 32)
		if err1 != nil || err2 != nil || every == 0 {
			return nil
		}
		return Statistic{Every: uint32(every), Packet: uint32(packet), Not: v["--every"].not}
	}
	return nil
}

// natFlags are the options of the NAT targets without a value.
var natFlags = []string{"--random", "--random-fully", "--persistent"}

// parseTarget reads "-j NAME ..."; what it can't read, or would print differently, it keeps as text.
func parseTarget(words []token, text string) Target {
	opts, ok := options(words[2:], natFlags...)
	v := map[string]option{}
	for _, o := range opts {
		ok = ok && !o.not
		v[o.name] = o
	}
	var t Target
	if ok {
		t = targetOf(words, v)
	}
	if t == nil || t.String() != text {
		return RawTarget(text)
	}
	return t
}

// targetOf makes a target of its name and options; nil of one it doesn't know. What it leaves out makes the caller keep the text.
func targetOf(words []token, v map[string]option) Target {
	flag := func(s string) bool { _, set := v[s]; return set }
	switch name := words[1].text; name {
	case "ACCEPT", "DROP", "RETURN":
		return Verdict(name)
	case "REJECT":
		return Reject{With: v["--reject-with"].value}
	case "DNAT":
		return DNAT{To: natAddr(v["--to-destination"].value), Random: flag("--random"), Persistent: flag("--persistent")}
	case "SNAT":
		return SNAT{natAddr(v["--to-source"].value), flag("--random"), flag("--random-fully"), flag("--persistent")}
	case "REDIRECT":
		port, _ := strconv.ParseUint(v["--to-ports"].value, 10, 16)
		return Redirect{Port: uint16(port), Random: flag("--random")}
	case "MASQUERADE":
		return Masquerade{Random: flag("--random"), RandomFully: flag("--random-fully")}
	case "MARK":
		value, mask, _ := parseMasked(v["--set-xmark"].value)
		return SetMark{Value: value, Mask: mask}
	default:
		if len(words) == 2 {
			return Jump{Chain: name, Goto: words[0].text == "-g"}
		}
	}
	return nil
}

// natAddr reads "10.0.0.1", "10.0.0.1:80", "fd00::1" or "[fd00::1]:80"; of anything else (ranges) it returns the zero AddrPort.
func natAddr(s string) netip.AddrPort {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 0)
	}
	a, _ := netip.ParseAddrPort(s)
	return a
}
