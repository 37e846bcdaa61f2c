package rules

import (
	"math"
	"slices"

	"weft/internal/overlay/edge"
	"weft/internal/xt"
)

// ChainNotrack is in table raw, where there are no nf_tables.
const ChainNotrack = "WEFT-NOTRACK"

// firstFlowPort begins the ports that VXLAN devices send from, by the flow inside (ip_local_port_range's default).
const firstFlowPort = 32768

// Untracked keeps outer packets from connection tracking by iptables, and as few others as ports can tell: an answer to a masqueraded flow may
// come to the port of a tunnel, and a service may have it.
func Untracked(c edge.Config) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		if len(c.Untracked) == 0 {
			break
		}
		t := r.Family(v6)
		jump := xt.Rule{Match: []xt.Match{xt.Comment("overlay")}, Target: xt.Jump{Chain: ChainNotrack}}
		t.Add("raw", "PREROUTING", jump)
		t.Add("raw", "OUTPUT", jump)
		for _, p := range c.Untracked {
			for _, from := range senders(c, p) {
				t.Add("raw", ChainNotrack, untracked(xt.Ports{Proto: "udp", Src: from, Dst: single(p)}, xt.AddrType{Dst: "LOCAL"}))
				t.Add("raw", ChainNotrack, untracked(xt.Ports{Proto: "udp", Src: from, Dst: single(p)}, xt.AddrType{Src: "LOCAL"}))
			}
		}
	}
	return r
}

func untracked(m ...xt.Match) xt.Rule {
	return xt.Rule{Proto: xt.Proto{Name: "udp"}, Match: m, Target: xt.RawTarget("-j CT --notrack")}
}

func single(port uint16) xt.PortRange { return xt.PortRange{First: port, Last: port} }

// senders are the ports from which packets to a tunnel's port come: those of sockets are the tunnels' own, those of VXLAN follow from flows.
func senders(c edge.Config, port uint16) (out []xt.PortRange) {
	vxlan := func(p uint16) bool {
		return slices.ContainsFunc(c.Segments, func(s edge.Segment) bool { return s.Port == p })
	}
	if vxlan(port) {
		return []xt.PortRange{{First: firstFlowPort, Last: math.MaxUint16}}
	}
	for _, p := range c.Untracked {
		if !vxlan(p) {
			out = append(out, single(p))
		}
	}
	return out
}
