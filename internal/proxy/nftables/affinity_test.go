package nftables

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nft"
	"weft/internal/proxy"
)

// TestAffinityOfPolicyLocal: what is remembered of clients that only the node's own endpoints may serve is apart from the rest, and an endpoint
// on another node is stale there, though the service has it.
func TestAffinityOfPolicyLocal(t *testing.T) {
	s := api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "s"}, Protocol: api.TCP, Port: 80, ExternalLocal: true, AffinitySeconds: 60,
		External: []netip.Addr{netip.MustParseAddr("192.0.2.9")},
		Endpoints: []api.Endpoint{
			{Addr: netip.MustParseAddrPort("172.16.1.2:80"), Node: "n", Ready: true},
			{Addr: netip.MustParseAddrPort("172.16.2.2:80"), Node: "other", Ready: true},
		},
	}
	plan := Planner{}.Plan(proxy.Node{Name: "n"}, s)
	for _, c := range plan.Chains {
		text, local := c.String(), strings.HasSuffix(c.Name, "-local") || strings.HasSuffix(c.Name, "-local-4")
		if strings.HasPrefix(c.Name, "split-") {
			continue
		}
		if strings.Contains(text, "@recent4") == local || strings.Contains(text, "@recent-local4") != local {
			t.Errorf("%s", text)
		}
	}
	lookup := func(set string, key nft.Tuple) (nft.Element, bool) {
		if s := plan.Set(set); s != nil {
			for _, e := range s.Elements {
				if e.Key == key {
					return e, true
				}
			}
		}
		return nft.Element{}, false
	}
	key := nft.TupleBuilder(nil).Addr(netip.MustParseAddr("198.51.100.1")).Addr(s.External[0]).Proto(nft.TCP).Port(80).Tuple()
	seen := 0
	for _, set := range Remembered() {
		for _, e := range s.Endpoints {
			want, known := map[string]bool{"recent4": false, "recent-local4": e.Node != "n"}[set.Name]
			if !known {
				continue
			}
			seen++
			data := nft.TupleBuilder(nil).Addr(e.Addr.Addr()).Port(e.Addr.Port()).Tuple()
			if got := Stale(set, lookup)(nft.Element{Key: key, Data: data}); got != want {
				t.Errorf("%s: %s is stale: %v", set.Name, e.Addr, got)
			}
		}
	}
	if seen != 4 {
		t.Errorf("%d lookups", seen)
	}
}
