package agent

import (
	"net/netip"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/masq"
)

// TestL2MasqueradesNothing: br_netfilter shows the rules frames between pods of one link, which must not change.
func TestL2MasqueradesNothing(t *testing.T) {
	f := agenttest.Walkthrough(facts.NFTables)
	f.MasqueradePods, f.Backend, f.Attach = true, "l2", "l2"
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	for _, chain := range masq.NFT(masqConfig(f, own)).Chains {
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
		r := planRules(f, own, api.Snapshot{}, guard.Plan(f, used, own, nil))
		if got := len(r.explainers(nil)); got != want {
			t.Errorf("mode %s: %d rulesets, want %d", mode, got, want)
		}
	}
}
