package facts

import (
	"net/netip"
	"testing"
	"time"

	"weft/internal/api"
)

func TestSettingsWakeOnlyForAChange(t *testing.T) {
	var s InForce
	ch := s.Subscribe()
	n := Setting{Facts: Facts{Node: "kube-node1", ProxyMode: NFTables}, Announced: api.Lease{Node: "kube-node1"}}
	if !s.Set(n) || len(ch) != 1 {
		t.Fatal("a new setting wakes nobody")
	}
	<-ch
	if s.Set(Setting{Facts: Facts{Node: "kube-node1", ProxyMode: NFTables}, Announced: api.Lease{Node: "kube-node1"}}) || len(ch) != 0 {
		t.Error("the same setting is taken for another")
	}
	stored := api.Lease{
		Node: "kube-node1", Subnet: netip.MustParsePrefix("172.16.28.0/24"), PublicIP: netip.MustParseAddr("172.17.42.31"), BackendType: "vxlan",
		Expiry: time.Unix(1, 0),
	}
	n.Announced.PublicIP, n.Announced.BackendType = netip.MustParseAddr("172.17.42.41"), "host-gw"
	if own := n.Own(stored); own.Subnet != stored.Subnet || own.BackendType != "host-gw" || own.PublicIP != n.Announced.PublicIP || own.Expiry != stored.Expiry {
		t.Errorf("own lease: %+v", own)
	}
}
