package others

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/xt"
)

func kubeProxyHost(t *testing.T) xt.Ruleset {
	t.Helper()
	tables, err := xt.Parse(agenttest.KubeProxyRules)
	if err != nil {
		t.Fatal(err)
	}
	return xt.Ruleset{V4: tables}
}

// TestKubeProxyOps removes all of a kube-proxy's and nothing else: the jumps first, chains when nothing in them leads to another.
func TestKubeProxyOps(t *testing.T) {
	have := kubeProxyHost(t)
	var lines []string
	for _, op := range KubeProxyOps(have) {
		lines = append(lines, op.String())
	}
	want := []string{
		`iptables -t nat -D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`,
		`iptables -t nat -D POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING`,
		"iptables -t nat -F KUBE-SERVICES", "iptables -t nat -F KUBE-POSTROUTING", "iptables -t nat -F KUBE-SVC-ABC", "iptables -t nat -F KUBE-SEP-DEF",
		"iptables -t nat -X KUBE-SERVICES", "iptables -t nat -X KUBE-POSTROUTING", "iptables -t nat -X KUBE-SVC-ABC", "iptables -t nat -X KUBE-SEP-DEF",
		`iptables -t filter -D INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS`,
		"iptables -t filter -F KUBE-NODEPORTS", "iptables -t filter -X KUBE-NODEPORTS",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	got := Serving(have)
	if want := []string{"iptables chain filter KUBE-NODEPORTS", "iptables chain nat KUBE-POSTROUTING", "iptables chain nat KUBE-SERVICES"}; !slices.Equal(got, want) {
		t.Errorf("serving: %q", got)
	}
}

func TestTwoProxiesAreNamed(t *testing.T) {
	tables := ServingTables([]kernelnft.BaseChain{
		{Family: nft.IPv4, Table: "kube-proxy"}, {Family: nft.IPv4, Table: "kube-proxy"}, {Family: nft.INet, Table: "weft"}, {Family: nft.INet, Table: "kube-proxy"},
	})
	out := WarnKubeProxy(nil, tables)
	if len(out) == 0 || !strings.Contains(out[0], "table ip kube-proxy. If weft is to serve") || !strings.Contains(out[0], "weft cleanup --kube-proxy") {
		t.Errorf("%q", out)
	}
}

// TestIPVSLeft: what kube-proxy leaves in mode ipvs is told of.
func TestIPVSLeft(t *testing.T) {
	dir := t.TempDir()
	if left := IpvsLeft(dir, dir); len(left) != 0 {
		t.Errorf("nothing is there: %q", left)
	}
	const heading = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
	for path, text := range map[string]string{"class/net/kube-ipvs0": "", "net/ip_vs": heading} {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if left := IpvsLeft(dir, dir); !slices.Equal(left, []string{"link kube-ipvs0"}) {
		t.Errorf("an empty list of servers: %q", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "net/ip_vs"), []byte(heading+"TCP  0AFE0001:01BB rr\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if left := IpvsLeft(dir, dir); len(left) != 2 {
		t.Errorf("%q", left)
	}
}
