package rules

import "weft/internal/xt"

// ChainNotrack is in table raw, where there are no nf_tables.
const ChainNotrack = "WEFT-NOTRACK"

// Untracked keeps outer packets from connection tracking by iptables.
func Untracked(ports []uint16) xt.Ruleset {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		if len(ports) == 0 {
			break
		}
		t := r.Family(v6)
		jump := xt.Rule{Match: []xt.Match{xt.Comment("overlay")}, Target: xt.Jump{Chain: ChainNotrack}}
		t.Add("raw", "PREROUTING", jump)
		t.Add("raw", "OUTPUT", jump)
		for _, p := range ports {
			t.Add("raw", ChainNotrack, xt.Rule{
				Proto: xt.Proto{Name: "udp"}, Match: []xt.Match{xt.Ports{Proto: "udp", Dst: xt.PortRange{First: p, Last: p}}},
				Target: xt.RawTarget("-j CT --notrack"),
			})
		}
	}
	return r
}
