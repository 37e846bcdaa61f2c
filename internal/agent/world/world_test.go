package world

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/explain"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/packet"
)

// node is a node with an agent, whose lease is in the annotations under the prefix.
func node(t *testing.T, name, n, prefix string) api.Node {
	t.Helper()
	addr, subnet := netip.MustParseAddr("172.17.42."+n), netip.MustParsePrefix("172.16."+n+".0/24")
	text, err := lease.Annotations(api.Lease{
		Node: name, Subnet: subnet, PublicIP: addr, BackendType: lease.VXLAN, VNI: 1, VTEPMAC: "02:00:00:00:00:" + n,
	}, prefix)
	if err != nil {
		t.Fatal(err)
	}
	f := facts.Facts{
		Node: name, Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{addr}, Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
		Gateway: netip.MustParseAddr("172.17.42.1"), Attach: attach.Routed, ProxyMode: facts.NFTables, IPMasq: true,
		Network: netip.MustParsePrefix("172.16.0.0/12"), Backend: lease.VXLAN, Options: overlay.Options{VNI: 1},
	}
	if prefix != lease.AnnotationPrefix {
		f.AnnotationPrefix = prefix
	}
	if text[facts.Annotation], err = f.JSON(); err != nil {
		t.Fatal(err)
	}
	return api.Node{Name: name, Addresses: f.Addrs, PodCIDRs: []netip.Prefix{subnet}, Annotations: text}
}

func pod(name, node, ip, phase string) api.Pod {
	return api.Pod{UID: name, Namespace: "default", Name: name, Node: node, IPs: []netip.Addr{netip.MustParseAddr(ip)}, Phase: phase}
}

// TestPlan: all nodes are planned from what they published, whatever prefix their annotations have; one without a lease, or without an agent, is
// there with its address and holds up nobody.
func TestPlan(t *testing.T) {
	for _, prefix := range []string{lease.AnnotationPrefix, "flannel.example.com/blue-"} {
		newcomer := node(t, "n3", "33", prefix)
		newcomer.PodCIDRs = nil
		snap := api.Snapshot{
			Nodes: []api.Node{
				node(t, "n1", "31", prefix), node(t, "n2", "32", prefix), newcomer,
				{Name: "other", Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.40")}},
			},
			Pods: []api.Pod{pod("a", "n1", "172.16.31.5", "Running"), pod("b", "n2", "172.16.32.5", "Running"), pod("old", "n2", "172.16.32.6", "Succeeded")},
		}
		leases := leasesOf(snap.Nodes)
		if len(leases) != 2 {
			t.Fatalf("%s: leases %+v", prefix, leases)
		}
		w, err := Plan(snap, leases)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, h := range w.Hosts {
			names = append(names, h.Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != "default/a default/b n1 n2 n3 other" {
			t.Errorf("%s: hosts %s", prefix, got)
		}
		steps, err := explain.Walk(w, "default/a", packet.Flow{Proto: "tcp", Dst: netip.MustParseAddrPort("172.16.32.5:80")}, nil)
		if err != nil || !strings.Contains(steps.Text(), "delivered: default/b") {
			t.Errorf("%s: %v\n%s", prefix, err, steps.Text())
		}
		i := slices.IndexFunc(w.Hosts, func(h *explain.Host) bool { return h.Name == "n3" })
		if a := netstate.Of[netstate.Addr](w.Hosts[i].Underlay); len(a) != 1 || a[0].Prefix.String() != "172.17.42.33/32" {
			t.Errorf("%s: the node without a lease has %v", prefix, a)
		}
	}
}

// TestPlanNamesTheNode: facts that can't be read are an error with the node's name.
func TestPlanNamesTheNode(t *testing.T) {
	n := node(t, "n1", "31", lease.AnnotationPrefix)
	n.Annotations[facts.Annotation] = "{"
	if _, err := Plan(api.Snapshot{Nodes: []api.Node{n}}, nil); err == nil || !strings.Contains(err.Error(), "node n1: annotation "+facts.Annotation) {
		t.Error(err)
	}
}
