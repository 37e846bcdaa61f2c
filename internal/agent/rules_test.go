package agent

import (
	"net/netip"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
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
