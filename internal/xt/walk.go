package xt

import (
	"net/netip"
	"strings"
)

// Packet is what rules look at.
type Packet struct {
	Proto            string // as iptables spells it: "tcp", "udp", "icmp", ...
	Src, Dst         netip.AddrPort
	In, Out          string // interfaces, "" where there is none
	Mark             uint32
	State            string // conntrack states joined by commas ("ESTABLISHED,DNAT"); "" is NEW
	SrcType, DstType string // "LOCAL", "MULTICAST", ...; "" is UNICAST
}

// Answer says whether a rule matches a packet.
type Answer uint8

// The answers. Of several matches the weakest counts: No, then Unknown, Sometimes, Yes.
const (
	No        Answer = iota
	Unknown          // a match the package does not know
	Sometimes        // by chance (statistic)
	Yes
)

// Matches says whether the rule matches the packet.
func (r Rule) Matches(p Packet) Answer {
	if !r.Src.has(p.Src.Addr()) || !r.Dst.has(p.Dst.Addr()) || !r.In.has(p.In) || !r.Out.has(p.Out) || !r.Proto.has(p.Proto) {
		return No
	}
	a := Yes
	for _, m := range r.Match {
		a = min(a, m.match(&p))
	}
	return a
}

func (a Address) has(ip netip.Addr) bool {
	return !a.Prefix.IsValid() || a.Prefix.Contains(ip.Unmap()) != a.Not
}

func (i Iface) has(name string) bool {
	if i.Name == "" {
		return true
	}
	begin, wild := strings.CutSuffix(i.Name, "+")
	return (name == i.Name || wild && strings.HasPrefix(name, begin)) != i.Not
}

// protoNames are other spellings of protocols.
var protoNames = map[string]string{
	"6": "tcp", "17": "udp", "132": "sctp", "1": "icmp", "58": "icmp", "ipv6-icmp": "icmp", "icmpv6": "icmp", "icmp6": "icmp",
}

func (p Proto) has(name string) bool {
	return p.Name == "" || p.Name == "all" || protoName(p.Name) == protoName(name) != p.Not
}

func protoName(s string) string {
	s = strings.ToLower(s)
	if n, ok := protoNames[s]; ok {
		return n
	}
	return s
}

func answer(yes bool) Answer {
	if yes {
		return Yes
	}
	return No
}

func (Comment) match(*Packet) Answer { return Yes }

func (p Ports) match(k *Packet) Answer {
	return answer(protoName(p.Proto) == protoName(k.Proto) && p.Src.has(k.Src.Port()) && p.Dst.has(k.Dst.Port()))
}

func (p PortRange) has(port uint16) bool {
	return p.Zero() || (p.First <= port && port <= p.Last) != p.Not
}

func (m Mark) match(p *Packet) Answer { return answer((p.Mark&m.Mask == m.Value) != m.Not) }

func (a AddrType) match(p *Packet) Answer {
	kind := func(s string) string {
		if s == "" {
			return "UNICAST"
		}
		return s
	}
	return answer((a.Src == "" || has(a.Src, kind(p.SrcType)) != a.NotSrc) && (a.Dst == "" || has(a.Dst, kind(p.DstType)) != a.NotDst))
}

func (c Conntrack) match(p *Packet) Answer {
	state := p.State
	if state == "" {
		state = "NEW"
	}
	found := false
	for s := range strings.SplitSeq(state, ",") {
		found = found || has(c.States, s)
	}
	return answer(found != c.Not)
}

func (s Statistic) match(*Packet) Answer {
	if s.Every == 1 || s.Every == 0 && s.Random >= one {
		return answer(!s.Not)
	}
	return Sometimes
}

func (Raw) match(*Packet) Answer { return Unknown }

// Hit is a rule that a packet met and that matched, surely or perhaps.
type Hit struct {
	Table, Chain string
	Rule         Rule
	Answer       Answer
}

// String is the rule as a line of iptables-save.
func (h Hit) String() string { return "-A " + h.Chain + h.Rule.String() }

// maxDepth bounds jumps: the kernel refuses loops, a text may have them.
const maxDepth = 64

// Walk sends a packet through a chain of a table and returns the rules it hits, in order. The last hit decides when its target
// ends the walk (ACCEPT, DROP, REJECT, NAT, or the chain's policy, which is a hit without matches); marks set on the way count for
// the rules that follow. Rules that match only Sometimes or with Unknown are hits, and the walk goes on as if they had not matched.
func (t Tables) Walk(table, chain string, p Packet) []Hit {
	w := walk{tables: t, table: table, packet: p}
	if end := w.chain(chain, 0); end {
		return w.hits
	}
	if c := t.Chain(table, chain); c != nil && c.Policy == string(Drop) {
		w.hits = append(w.hits, Hit{table, chain, Rule{Target: Drop}, Yes})
	}
	return w.hits
}

type walk struct {
	tables Tables
	table  string
	packet Packet
	hits   []Hit
}

// chain reports whether the walk ended.
func (w *walk) chain(name string, depth int) bool {
	c := w.tables.Chain(w.table, name)
	if c == nil || depth > maxDepth {
		return false
	}
	for _, r := range c.Rules {
		a := r.Matches(w.packet)
		if a == No {
			continue
		}
		w.hits = append(w.hits, Hit{w.table, name, r, a})
		if a != Yes {
			continue
		}
		switch t := r.Target.(type) {
		case Jump:
			if end := w.chain(t.Chain, depth+1); end || t.Goto {
				return end
			}
		case SetMark:
			w.packet.Mark = w.packet.Mark&^t.Mask ^ t.Value
		case Verdict:
			return t != Return
		case Reject, DNAT, SNAT, Redirect, Masquerade:
			return true
		}
	}
	return false
}
