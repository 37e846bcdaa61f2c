package leases

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
)

func numberedNode(i, host int) api.Node {
	return kubeNode(fmt.Sprintf("node%05d", i), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + byte(i>>8), byte(i), 0}), 24).String(),
		netip.AddrFrom4([4]byte{198, 18 + byte(host>>16), byte(host >> 8), byte(host)}).String(), fmt.Sprintf("02:00:00:%02x:%02x:%02x", host>>16, byte(host>>8), byte(host)))
}

// TestKubeDelta: who follows the changes, and looks at all only when told to, has the list; most changes need no look.
func TestKubeDelta(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	k, _ := newKubeLeases(t)
	config, _, err := lease.ParseConfig([]byte(`{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	k.config = config
	nodes := []api.Node{kubeNode("n1", "10.244.1.0/24", "172.17.42.31", "02:00:00:00:00:01")}
	var have []api.Lease
	version, looks := uint64(0), 0
	for step := range 400 {
		for range r.IntN(4) {
			n := numberedNode(r.IntN(150), r.IntN(1000))
			nodes = slices.DeleteFunc(slices.Clone(nodes), func(o api.Node) bool { return o.Name == n.Name })
			if r.IntN(3) > 0 {
				if r.IntN(10) == 0 { // in the way of another, or unreadable
					n.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.128.0.0/24")}
					n.Annotations[lease.AnnotationPrefix+"public-ip"] = []string{"x", "198.19.0.1"}[r.IntN(2)]
				}
				nodes = append(nodes, n)
			}
		}
		if step == 200 {
			nodes = nodes[:1]
		}
		slices.SortFunc(nodes, func(a, b api.Node) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
		k.take(api.Snapshot{Nodes: nodes}, time.Unix(int64(step), 0))
		want := k.Leases()[1:]
		now, d, ok := k.Delta(version)
		if !ok {
			looks++
			have = want
		}
		for _, l := range d.Gone {
			i := slices.Index(have, l)
			if i < 0 {
				t.Fatalf("step %d: %v is gone and was not there", step, l)
			}
			have = slices.Delete(slices.Clone(have), i, i+1)
		}
		have = append(slices.Clone(have), d.Fresh...)
		slices.SortFunc(have, func(a, b api.Lease) int { return slices.Compare([]byte(a.Node), []byte(b.Node)) })
		if version = now; !slices.Equal(have, want) {
			t.Fatalf("step %d: %v, want %v", step, have, want)
		}
		// What was read before is what reading anew says.
		if fresh := (&nodeReader{prefix: lease.AnnotationPrefix}).nodes(k.config, k.self, k.avoid, nodes); !slices.Equal(fresh.peers, k.now.peers) || !slices.Equal(fresh.refused, k.now.refused) {
			t.Fatalf("step %d: what was kept of nodes is not what they say", step)
		}
	}
	if looks > 4 {
		t.Errorf("%d looks at all", looks)
	}
}

// BenchmarkKubeLease is what one changed node costs the list of leases in a cluster of 5,000.
func BenchmarkKubeLease(b *testing.B) {
	k := &Kube{read: nodeReader{prefix: lease.AnnotationPrefix}, reported: map[string]string{}, changed: make(chan struct{}, 1)}
	k.config, _, _ = lease.ParseConfig([]byte(`{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`))
	k.self = api.Lease{Node: "n1", PublicIP: netip.MustParseAddr("172.17.42.31"), BackendType: "vxlan", VNI: 1, VTEPMAC: "02:00:00:00:00:01"}
	nodes := []api.Node{kubeNode("n1", "10.244.1.0/24", "172.17.42.31", "02:00:00:00:00:01")}
	for i := range 5000 {
		nodes = append(nodes, numberedNode(i, i))
	}
	k.take(api.Snapshot{Nodes: nodes}, time.Unix(1, 0))
	version, _, _ := k.Delta(0)
	i := 0
	for b.Loop() {
		i++
		nodes = slices.Clone(nodes)
		nodes[1+i%5000] = numberedNode(i%5000, 5000+i%50000)
		k.take(api.Snapshot{Nodes: nodes}, time.Unix(1, 0))
		now, d, ok := k.Delta(version)
		if version = now; !ok || len(d.Fresh) != 1 {
			b.Fatal(d, ok)
		}
	}
}
