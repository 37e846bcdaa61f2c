package edge_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

var update = flag.Bool("update", false, "write the golden files")

func member(vni uint32, outer, subnet string) edge.Member {
	return edge.Member{VNI: vni, Outer: netip.MustParseAddr(outer), Subnet: netip.MustParsePrefix(subnet)}
}

// table is the whole plan, as the union of its owners.
func table(c edge.Config, members ...edge.Member) nft.Table {
	c.Shapes = edge.ShapesOf(members)
	parts := map[string]nft.Table{"": edge.Rules(c)}
	for _, m := range members {
		parts[m.Outer.String()+m.Subnet.String()] = edge.Elements(m)
	}
	return nft.Union(parts)
}

func plans() map[string]nft.Table {
	peers := []edge.Member{member(1, "172.17.42.31", "172.16.28.0/24"), member(1, "172.17.42.32", "172.16.78.0/24")}
	vxlan := edge.Config{Check: true, V4: true, Untracked: []uint16{8472}, Segments: []edge.Segment{{Port: 8472, VNI: 1}}}
	dual := vxlan
	dual.V6 = true
	changing := vxlan
	changing.Untracked = []uint16{4789, 8472, 51820}
	changing.Segments = []edge.Segment{{Port: 8472, VNI: 1}, {Port: 4789, VNI: 7}}
	off := vxlan
	off.Check = false
	return map[string]nft.Table{
		"vxlan":   table(vxlan, peers...),
		"off":     table(off, peers...),
		"empty":   table(edge.Config{}),
		"dual":    table(dual, append(peers, member(1, "fd00::31", "fd00:16:28::/64"), member(1, "172.17.42.33", "fd00:16:33::/64"))...),
		"lengths": table(changing, append(peers, member(7, "172.17.42.31", "172.16.28.0/24"), member(1, "172.17.42.33", "172.16.80.0/20"))...),
		"sealed": table(edge.Config{Untracked: []uint16{51820}, Seal: edge.Seal{
			Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")},
			Devices:  []string{"flannel-wg", "flannel-wg-v6", "weft-wg*", "lo", "veth*"},
		}}),
	}
}

func TestGoldens(t *testing.T) {
	for name, got := range plans() {
		file := filepath.Join("testdata", name+".nft")
		if *update {
			if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(golden), got.String()); d != "" {
			t.Errorf("%s differs (-golden +plan), write it with -update:\n%s", file, d)
		}
		back, err := nft.ParseTable(got.String())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back.Sort()
		if d := cmp.Diff(got.String(), back.String()); d != "" {
			t.Errorf("%s read back (-plan +read):\n%s", name, d)
		}
	}
}

// TestAddedLeaseIsElements: a peer that joins costs its elements and no rule.
func TestAddedLeaseIsElements(t *testing.T) {
	m := nft.NewMerge(nft.INet, nft.TableName)
	first := member(1, "172.17.42.31", "172.16.28.0/24")
	c := edge.Config{Check: true, V4: true, Segments: []edge.Segment{{Port: 8472, VNI: 1}}, Shapes: edge.ShapesOf([]edge.Member{first})}
	m.Update(map[string]nft.Table{"rules": edge.Rules(c), "31": edge.Elements(first)})
	ops := m.Set("32", edge.Elements(member(1, "172.17.42.32", "172.16.78.0/24")))
	if len(ops) != 2 || ops[0].Kind != nft.KindElements || ops[1].Kind != nft.KindElements || ops[0].Count()+ops[1].Count() != 2 {
		t.Errorf("a joining peer: %v", ops)
	}
}
