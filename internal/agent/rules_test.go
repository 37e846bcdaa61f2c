package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/masq"
)

// TestL2MasqueradesNothing: br_netfilter shows the rules frames between pods of one link, which must not change.
func TestL2MasqueradesNothing(t *testing.T) {
	f := walkthroughFacts(NFTables)
	f.MasqueradePods, f.Backend, f.Attach = true, "l2", "l2"
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	for _, chain := range masq.NFT(f.masqConfig(own)).Chains {
		t.Errorf("a chain for sources: %s", chain)
	}
}

func TestPodNetworksLeaveTheUnderlayOut(t *testing.T) {
	for _, c := range []struct{ network, connected, want string }{
		{"172.16.0.0/12", "172.17.0.0/16", "[172.16.0.0/16 172.18.0.0/15 172.20.0.0/14 172.24.0.0/13]"},
		{"10.0.0.0/8", "172.17.0.0/16", "[10.0.0.0/8]"},
		{"10.0.0.0/8", "10.128.0.0/9", "[10.0.0.0/9]"},
		{"10.0.0.0/16", "10.0.0.0/8", "[10.0.0.0/16]"},
		{"fd00::/16", "fd00:1::/32", "[fd00::/32 fd00:2::/31 fd00:4::/30 fd00:8::/29 fd00:10::/28 fd00:20::/27 fd00:40::/26 fd00:80::/25 " +
			"fd00:100::/24 fd00:200::/23 fd00:400::/22 fd00:800::/21 fd00:1000::/20 fd00:2000::/19 fd00:4000::/18 fd00:8000::/17]"},
	} {
		f := Facts{Network: netip.MustParsePrefix(c.network), Connected: []netip.Prefix{netip.MustParsePrefix(c.connected)}}
		got := f.podNetworks()
		if text := fmt.Sprint(got); text != c.want {
			t.Errorf("%s without %s: %s, want %s", c.network, c.connected, text, c.want)
		}
	}
}
