package ways

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/lease"
)

// TestPodsOfAllNodesAreKnown: what one node publishes is a path on another; what a node says of addresses that are not its own is not.
func TestPodsOfAllNodesAreKnown(t *testing.T) {
	text, err := PodPlaces([]attach.Pod{
		{Name: "web", IPs: []netip.Addr{netip.MustParseAddr("172.16.78.2"), netip.MustParseAddr("fd00:78::2")}},
		{Name: "thief", IPs: []netip.Addr{netip.MustParseAddr("172.16.28.9")}},
		{Name: "new"},
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes := []api.Node{
		{Name: "kube-node1", Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.31")}},
		{Name: "kube-node2", Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.32")}, Annotations: map[string]string{PodsAnnotation: text}},
		{Name: "kube-node3", Annotations: map[string]string{PodsAnnotation: "no JSON"}},
	}
	own := agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.L2, 1, "02:00:00:00:00:01")
	peer := agenttest.Lease("", "172.16.78.0/24", "172.17.42.32", lease.L2, 1, "02:00:00:00:00:02")
	peer.SubnetV6 = netip.MustParsePrefix("fd00:78::/64")
	all := Named(nodes, []api.Lease{own, peer})
	if all[1].Node != "kube-node2" {
		t.Fatalf("the peer's lease is of %q", all[1].Node)
	}
	endpoints := Endpoints(nodes, all)
	if len(endpoints) != 2 || endpoints[1].MAC != endpoints[0].MAC || endpoints[0].MAC != attach.MAC(netip.MustParseAddr("172.16.78.2")) {
		t.Errorf("endpoints: %+v", endpoints)
	}
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend, f.Attach, f.Options.VNI = lease.L2, attach.L2, 1
	used, err := Of(f, own, all)
	if err != nil {
		t.Fatal(err)
	}
	Place(used, endpoints)
	host, _ := PlanNode(f, used, own, all, nil)
	plan := host.String()
	for _, want := range []string{"weftl2.1", "master docker0", "02:42:ac:10:4e:02 dev weftl2.1 dst 172.17.42.32", "172.16.78.2 lladdr 02:42:ac:10:4e:02"} {
		if !strings.Contains(plan, want) {
			t.Errorf("the plan lacks %q:\n%s", want, plan)
		}
	}
	if strings.Contains(plan, "172.16.28.9") {
		t.Errorf("a node took over another's address:\n%s", plan)
	}
}
