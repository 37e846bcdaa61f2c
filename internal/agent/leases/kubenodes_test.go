package leases

import (
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
)

const kubeConf = `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`

func kubeNode(name, cidr, ip, mac string) api.Node {
	n := api.Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(ip)}}
	if cidr != "" {
		n.PodCIDRs = []netip.Prefix{netip.MustParsePrefix(cidr)}
	}
	p := lease.AnnotationPrefix
	n.Annotations = map[string]string{
		p + "kube-subnet-manager": "true", p + "backend-type": "vxlan", p + "public-ip": ip,
		p + "backend-data": `{"VNI":1,"VtepMAC":"` + mac + `"}`,
	}
	return n
}

func newKubeLeases(t *testing.T) (*Kube, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "net-conf.json")
	if err := os.WriteFile(path, []byte(kubeConf), 0o600); err != nil {
		t.Fatal(err)
	}
	k, _, err := OpenKube(slog.New(slog.DiscardHandler), path, lease.AnnotationPrefix)
	if err != nil {
		t.Fatal(err)
	}
	k.self = api.Lease{Node: "n1", PublicIP: netip.MustParseAddr("172.17.42.31"), BackendType: "vxlan", VNI: 1, VTEPMAC: "02:00:00:00:00:01"}
	return k, path
}

// TestNodesJudged: each broken node is refused alone, with its name, the key, the value and the reason, and comes back when it is mended.
func TestNodesJudged(t *testing.T) {
	good := kubeNode("n2", "10.244.2.0/24", "172.17.42.32", "02:00:00:00:00:02")
	own := kubeNode("n1", "10.244.1.0/24", "172.17.42.31", "02:00:00:00:00:01")
	bad := kubeNode("n3", "10.244.3.0/24", "172.17.42.33", "02:00:00:00:00:03")
	annotated := func(name, value string) api.Node {
		n := kubeNode("n3", "10.244.3.0/24", "172.17.42.33", "02:00:00:00:00:03")
		n.Annotations[lease.AnnotationPrefix+name] = value
		return n
	}
	route := func(dst, via string) []claim.HostRoute {
		h := claim.HostRoute{Dst: netip.MustParsePrefix(dst), Dev: "eth1"}
		if via != "" {
			h.Via = netip.MustParseAddr(via)
		}
		return []claim.HostRoute{h}
	}
	for name, tt := range map[string]struct {
		node  api.Node
		avoid []claim.HostRoute
		kind  string
		want  []string
	}{
		"fine":          {node: bad},
		"not managed":   {node: annotated("kube-subnet-manager", "false"), kind: "-"},
		"8-byte MAC":    {annotated("backend-data", `{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff:00:11"}`), nil, claim.Malformed, []string{"node n3", "backend-data", "aa:bb:cc:dd:ee:ff:00:11"}},
		"bad JSON":      {annotated("backend-data", `{`), nil, claim.Malformed, []string{"node n3", "backend-data", "JSON"}},
		"bad public-ip": {annotated("public-ip", "here"), nil, claim.Malformed, []string{"node n3", "public-ip", `"here"`}},
		"no podCIDR":    {kubeNode("n3", "", "172.17.42.33", "02:00:00:00:00:03"), nil, claim.Malformed, []string{"node n3", "spec.podCIDRs: empty"}},
		"outside":       {kubeNode("n3", "10.9.3.0/24", "172.17.42.33", "02:00:00:00:00:03"), nil, claim.Outside, []string{"node n3", "10.9.3.0/24: outside Network 10.244.0.0/16"}},
		"overlaps own":  {kubeNode("n3", "10.244.0.0/23", "172.17.42.33", "02:00:00:00:00:03"), nil, claim.OwnSubnet, []string{"node n3", "10.244.0.0/23 overlaps this node's own 10.244.1.0/24"}},
		"overlaps peer": {kubeNode("n3", "10.244.2.128/25", "172.17.42.33", "02:00:00:00:00:03"), nil, claim.Overlapping, []string{"node n3", "10.244.2.128/25 overlaps 10.244.2.0/24 of node n2"}},
		"host route":    {bad, route("10.244.3.0/24", ""), claim.InTheWay, []string{"node n3", "10.244.3.0/24 overlaps this host's own route 10.244.3.0/24 dev eth1"}},
		"part of it":    {bad, route("10.244.3.8/32", "172.17.42.33"), claim.InTheWay, []string{"node n3", "10.244.3.8/32 via 172.17.42.33 dev eth1"}},
		"flannel's":     {bad, route("10.244.3.0/24", "172.17.42.33"), "", nil},
	} {
		k, _ := newKubeLeases(t)
		k.avoid = tt.avoid
		k.take(api.Snapshot{Nodes: []api.Node{own, good, tt.node}}, time.Now())
		s, believes := k.Status()
		if !believes || s.Problem != "" || s.Phase != "held" {
			t.Errorf("%s: own %+v", name, s)
		}
		peers := len(k.Leases()) - 1
		if tt.kind == "" && (peers != 2 || len(s.Refused) != 0) || tt.kind == "-" && (peers != 1 || len(s.Refused) != 0) {
			t.Errorf("%s: %d peers, refused %+v", name, peers, s.Refused)
		}
		if tt.want == nil {
			continue
		}
		if peers != 1 || len(s.Refused) != 1 || s.Refused[0].Kind != tt.kind {
			t.Errorf("%s: %d peers, refused %+v, want kind %s", name, peers, s.Refused, tt.kind)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(s.Refused[0].Reason, w) {
				t.Errorf("%s: no %q in %s", name, w, s.Refused[0].Reason)
			}
		}
		k.avoid = nil
		k.take(api.Snapshot{Nodes: []api.Node{own, good, bad}}, time.Now())
		if s, _ := k.Status(); len(k.Leases()) != 3 || len(s.Refused) != 0 {
			t.Errorf("%s, mended: %d leases, %+v", name, len(k.Leases()), s.Refused)
		}
	}
}

// TestOwnNode: what stands between the node and its lease is said; what it has is kept meanwhile and no new pods are let in.
func TestOwnNode(t *testing.T) {
	own := kubeNode("n1", "10.244.1.0/24", "172.17.42.31", "02:00:00:00:00:01")
	k, path := newKubeLeases(t)
	now := time.Now()
	for _, tt := range []struct {
		nodes []api.Node
		want  string
	}{
		{nil, "node n1 is not registered"},
		{[]api.Node{kubeNode("n1", "", "172.17.42.31", "02:00:00:00:00:01")}, "node n1 has no spec.podCIDR yet"},
		{[]api.Node{kubeNode("n1", "10.9.1.0/24", "172.17.42.31", "02:00:00:00:00:01")}, "10.9.1.0/24: outside Network 10.244.0.0/16"},
	} {
		k.take(api.Snapshot{Nodes: tt.nodes}, now)
		s, believes := k.Status()
		if _, ok := k.Own(); ok || believes || s.Phase != "seeking" || !strings.Contains(s.Problem, tt.want) || s.Since != now {
			t.Errorf("%q: own %t, believes %t, %+v", tt.want, ok, believes, s)
		}
	}
	if _, stale := k.take(api.Snapshot{Nodes: []api.Node{own}}, now); stale {
		t.Error("annotations that say everything are written again")
	}
	plain := own
	plain.Annotations = nil
	if _, stale := k.take(api.Snapshot{Nodes: []api.Node{plain}}, now); !stale {
		t.Error("missing annotations are not written")
	}
	if s, believes := k.Status(); !believes || s.Problem != "" || !s.Since.IsZero() {
		t.Errorf("healthy: %+v", s)
	}
	wrong := kubeNode("n1", "10.244.1.0/24", "172.17.42.99", "02:00:00:00:00:01")
	if _, stale := k.take(api.Snapshot{Nodes: []api.Node{wrong}}, now); !stale {
		t.Error("another address is not written over")
	}
	k.AvoidRoutes([]claim.HostRoute{{Dst: netip.MustParsePrefix("10.244.1.128/25"), Dev: "eth1"}})
	k.take(api.Snapshot{Nodes: []api.Node{own}}, now)
	s, believes := k.Status()
	if l, ok := k.Own(); !ok || believes || l.Subnet.String() != "10.244.1.0/24" || !strings.Contains(s.Problem, "route 10.244.1.128/25 dev eth1") {
		t.Errorf("a route in the way: own %t, believes %t, %+v", ok, believes, s)
	}
	k.AvoidRoutes(nil)

	k.SetConfig([]byte(`{"Network":"ten"}`), nil)
	k.take(api.Snapshot{Nodes: []api.Node{own}}, now)
	s, believes = k.Status()
	if c, _ := k.NetworkConfig(); !believes || c.V4.Network.String() != "10.244.0.0/16" ||
		!strings.Contains(s.Problem, "--net-config-path="+path+" is not taken up") || !strings.Contains(s.Problem, `"ten"`) {
		t.Errorf("broken file: believes %t, %+v", believes, s)
	}
	k.SetConfig([]byte(strings.Replace(kubeConf, "vxlan", "host-gw", 1)), nil)
	k.take(api.Snapshot{Nodes: []api.Node{own}}, now)
	if c, _ := k.NetworkConfig(); c.Backend.Type != "host-gw" {
		t.Errorf("backend %s", c.Backend.Type)
	}
	if s, _ := k.Status(); s.Problem != "" {
		t.Errorf("mended file: %+v", s)
	}
}

// TestAnnotatedOnce: what was written is not written again, also where the node has podCIDRs of one family only and the host, or the network,
// both.
func TestAnnotatedOnce(t *testing.T) {
	self := api.Lease{
		Node: "n1", PublicIP: netip.MustParseAddr("172.17.42.31"), PublicIPv6: netip.MustParseAddr("fd17::31"), BackendType: "vxlan", VNI: 1,
		VTEPMAC: "02:00:00:00:00:01", VTEPMACv6: "02:00:00:00:06:01",
	}
	guard := self
	guard.BackendType, guard.VNI, guard.VTEPMAC, guard.VTEPMACv6 = "wireguard", 0, "", ""
	guard.WGKey, guard.WGPort, guard.WGPortV6 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 51820, 51821
	for _, conf := range []string{
		`{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`,
		`{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"vxlan"}}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"vxlan"}}`,
	} {
		c, _, err := lease.ParseConfig([]byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		for _, cidrs := range [][]string{{"10.244.1.0/24"}, {"fd10:0:0:1::/64"}, {"10.244.1.0/24", "fd10:0:0:1::/64"}} {
			for _, l := range []api.Lease{self, guard} {
				n := api.Node{Name: "n1", Annotations: map[string]string{lease.AnnotationPrefix + "public-ip": "172.17.42.98"}} // of an earlier time
				for _, p := range cidrs {
					n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(p))
				}
				own, stale, problem := ownOf(c, lease.AnnotationPrefix, l, nil, n)
				if problem != "" {
					continue // the node has no podCIDR of a family that the network uses
				}
				if !stale {
					t.Errorf("%s, %v: nothing is written", conf, cidrs)
				}
				text, err := lease.Annotations(own, lease.AnnotationPrefix)
				if err != nil {
					t.Fatal(err)
				}
				maps.Copy(n.Annotations, text)
				if _, stale, _ := ownOf(c, lease.AnnotationPrefix, l, nil, n); stale {
					t.Errorf("%s, %v, %s: written again and again", conf, cidrs, l.BackendType)
				}
			}
		}
	}
}

// TestAnotherPrefix: with a prefix of one's own the annotations of flannel's default say nothing, and what is written has the prefix.
func TestAnotherPrefix(t *testing.T) {
	const prefix = "flannel.example.com/blue-"
	k, _ := newKubeLeases(t)
	k.read.prefix = prefix
	own, peer := kubeNode("n1", "10.244.1.0/24", "172.17.42.31", "02:00:00:00:00:01"), kubeNode("n2", "10.244.2.0/24", "172.17.42.32", "02:00:00:00:00:02")
	snap := api.Snapshot{Nodes: []api.Node{own, peer}}
	if _, stale := k.take(snap, time.Now()); !stale || len(k.Leases()) != 1 {
		t.Errorf("the default's annotations count: stale %v, %d leases", stale, len(k.Leases()))
	}
	for i, n := range snap.Nodes {
		snap.Nodes[i].Annotations = maps.Clone(n.Annotations)
		for _, name := range []string{"kube-subnet-manager", "backend-type", "public-ip", "backend-data"} {
			snap.Nodes[i].Annotations[prefix+name] = n.Annotations[lease.AnnotationPrefix+name]
		}
	}
	if _, stale := k.take(snap, time.Now()); stale || len(k.Leases()) != 2 {
		t.Errorf("the prefix's annotations: stale %v, %d leases", stale, len(k.Leases()))
	}
}
