package explain

import (
	"net/netip"
	"slices"
	"strings"

	"weft/internal/xt"
)

// IPTables answers from iptables rules.
type IPTables struct {
	Rules xt.Ruleset
	// Local reports whether an address is the host's own (addrtype matches).
	Local func(netip.Addr) bool
}

// hookTables lists the tables a packet meets at each hook, in order (iptables(8); the nat table's source side comes last).
var hookTables = map[Hook][]string{
	Prerouting:  {"raw", "mangle", "nat"},
	Input:       {"mangle", "filter", "nat"},
	Forward:     {"mangle", "filter"},
	Output:      {"raw", "mangle", "nat", "filter"},
	Postrouting: {"mangle", "nat"},
}

// Eval implements Rules for the first packet of a connection.
func (t IPTables) Eval(hook Hook, p Packet) []Outcome {
	var out []Outcome
	for _, table := range hookTables[hook] {
		for _, o := range t.chain(table, strings.ToUpper(string(hook)), p) {
			out = append(out, o)
			p = apply(p, o)
			if o.Action == Drop || o.Action == Reject {
				return out
			}
		}
	}
	return out
}

// chain is what a chain of a table does to the packet. Rules that match by chance (statistic) jump to one chain for each endpoint, and
// the rule after them takes the rest: together they are the alternatives of one choice.
func (t IPTables) chain(table, chain string, p Packet) []Outcome {
	var out []Outcome
	var drawn [][]Outcome
	before := 0
	rules := *t.Rules.Family(p.Dst.Addr().Is6())
	for _, hit := range rules.Walk(table, chain, t.packet(p)) {
		if jump, is := hit.Rule.Target.(xt.Jump); is && hit.Answer == xt.Sometimes {
			if len(drawn) == 0 {
				before = len(out)
			}
			drawn = append(drawn, t.chain(table, jump.Chain, p))
			continue
		}
		o := Outcome{Rule: "iptables -t " + table + " " + hit.String()}
		if hit.Answer == xt.Yes && o.decide(hit.Rule.Target) {
			out = append(out, o)
		}
	}
	if len(drawn) == 0 {
		return out
	}
	return append(slices.Clone(out[:before]), Outcome{Action: OneOf, Alternatives: append(drawn, out[before:])})
}

// apply follows an outcome as far as the next table's matches can see it.
func apply(p Packet, o Outcome) Packet {
	switch o.Action {
	case SetMark:
		p.Mark = p.Mark&^o.Mask ^ o.Mark
	case DNAT:
		p.Dst, p.DNATed = o.To[0], true
	case Redirect:
		p.DNATed = true
	case OneOf: // any of them will do for the tables that follow at the same hook
		for _, x := range o.Alternatives[0] {
			p = apply(p, x)
		}
	}
	return p
}

func (t IPTables) packet(p Packet) xt.Packet {
	k := xt.Packet{Proto: p.Proto, Src: p.Src, Dst: p.Dst, In: p.In, Out: p.Out, Mark: p.Mark, State: "NEW"}
	if p.DNATed {
		k.State = "NEW,DNAT"
	}
	if t.Local != nil && t.Local(p.Dst.Addr()) {
		k.DstType = "LOCAL"
	}
	if t.Local != nil && p.Src.Addr().IsValid() && t.Local(p.Src.Addr()) {
		k.SrcType = "LOCAL"
	}
	return k
}

// decide fills the outcome from a target and reports whether the target does something to the packet that is worth a step.
func (o *Outcome) decide(target xt.Target) bool {
	switch t := target.(type) {
	case xt.Verdict:
		o.Action = Accept
		if t == xt.Drop {
			o.Action = Drop
		}
		return t != xt.Return
	case xt.Reject:
		o.Action = Reject
	case xt.DNAT:
		o.Action, o.To = DNAT, []netip.AddrPort{t.To}
	case xt.Redirect:
		o.Action, o.To = Redirect, []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), t.Port)}
	case xt.Masquerade:
		o.Action = Masquerade
	case xt.SetMark:
		o.Action, o.Mark, o.Mask = SetMark, t.Value, t.Mask
	default:
		return false
	}
	return true
}
