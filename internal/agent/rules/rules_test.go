package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/proxy"
)

// TestL2MasqueradesNothing: br_netfilter shows the rules frames between pods of one link, which must not change.
func TestL2MasqueradesNothing(t *testing.T) {
	f := agenttest.Walkthrough(facts.NFTables)
	f.MasqueradePods, f.Backend, f.Attach = true, "l2", "l2"
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	for _, chain := range masq.NFT(Masquerade(f, own)).Chains {
		t.Errorf("a chain for sources: %s", chain)
	}
}

// TestExplainAsksAllRules: in the iptables modes the guard is in nf_tables, the rest in iptables.
func TestExplainAsksAllRules(t *testing.T) {
	own := agenttest.Peer("172.17.42.31", "172.16.28.0/24")
	for mode, want := range map[facts.ProxyMode]int{facts.Userspace: 2, facts.IPTables: 2, facts.NFTables: 1} {
		f := agenttest.Walkthrough(mode)
		used, err := ways.Of(f, own, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := Plan(f, own, api.Snapshot{}, guard.Plan(f, used, own, nil))
		if got := len(r.Explainers(nil)); got != want {
			t.Errorf("mode %s: %d rulesets, want %d", mode, got, want)
		}
	}
}

func TestPrimaryAddresses(t *testing.T) {
	a := func(texts ...string) (out []netip.Addr) {
		for _, x := range texts {
			out = append(out, netip.MustParseAddr(x))
		}
		return out
	}
	registered := api.Node{Name: "n", Addresses: a("172.17.42.31", "172.17.42.99", "fd00::31")}
	for _, c := range []struct {
		node *api.Node
		want string
	}{{&registered, "[172.17.42.31/32 fd00::31/128]"}, {&api.Node{}, "[10.0.0.1/32]"}, {nil, "[10.0.0.1/32]"}} {
		var n proxy.Node
		facts.Services{NodePortPrimary: true}.Apply(&n, addressesOf(c.node, a("10.0.0.1")))
		if got := fmt.Sprint(n.NodePortAddresses); got != c.want || !n.LocalhostNodePorts {
			t.Errorf("%+v: %s, want %s", c.node, got, c.want)
		}
	}
}

// TestServiceFactsReachThePlan: each setting changes what is planned, in each mode where it has a meaning there.
func TestServiceFactsReachThePlan(t *testing.T) {
	s := agenttest.Nginx("172.16.78.9:80")
	s.NodePort, s.SourceRanges = 30080, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	sctp := agenttest.Nginx("172.16.78.9:80")
	sctp.Protocol, sctp.Name.Name = api.SCTP, "sctp"
	snap := api.Snapshot{Services: []api.ServicePort{s, sctp}}
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	text := func(mode facts.ProxyMode, x facts.Services) string {
		f := agenttest.Walkthrough(mode)
		f.Services = x
		r := Plan(f, own, snap, guard.Guard{})
		return r.Text() + netstate.New(r.Objects()...).String()
	}
	some := []facts.ProxyMode{facts.NFTables, facts.IPTables}
	all := append([]facts.ProxyMode{facts.Userspace}, some...)
	for _, c := range []struct {
		facts facts.Services
		modes []facts.ProxyMode
	}{
		{facts.Services{NodePortAddresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, all},
		{facts.Services{NodePortPrimary: true}, all},
		{facts.Services{NoLocalhost: true}, all},
		{facts.Services{OpenNodePorts: true}, all},
		{facts.Services{MasqueradeAll: true}, some},
		{facts.Services{Liberal: true}, some},
		{facts.Services{NoSCTP: true}, some},
	} {
		for _, mode := range all {
			if changed := text(mode, c.facts) != text(mode, facts.Services{}); changed != slices.Contains(c.modes, mode) {
				t.Errorf("mode %s: %+v changes the plan: %v", mode, c.facts, changed)
			}
		}
	}
}
