package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/xt"
)

// kubeProxyRules is some of what kube-proxy v1.36.3 makes in mode iptables, beside the kubelet's, weft's and others'.
const kubeProxyRules = `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SVC-ABC - [0:0]
:KUBE-SEP-DEF - [0:0]
:KUBE-PORTALS-CONTAINER - [0:0]
:WEFT-KEEP - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m comment --comment "handle ClusterIPs; NOTE: this must be before the NodePort rules" -j KUBE-PORTALS-CONTAINER
-A POSTROUTING -m comment --comment "sources that stay" -j WEFT-KEEP
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
-A KUBE-SERVICES -d 10.254.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-ABC
-A KUBE-SVC-ABC -j KUBE-SEP-DEF
-A KUBE-SEP-DEF -p tcp -m tcp -j DNAT --to-destination 172.17.42.30:6443
-A WEFT-KEEP -s 172.16.0.0/12 -d 172.16.0.0/12 -j ACCEPT
COMMIT
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-NODEPORTS - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
COMMIT
`

func kubeProxyHost(t *testing.T) xt.Ruleset {
	t.Helper()
	tables, err := xt.Parse(kubeProxyRules)
	if err != nil {
		t.Fatal(err)
	}
	return xt.Ruleset{V4: tables}
}

// TestKubeProxyOps removes all of a kube-proxy's and nothing else: the jumps first, chains when nothing in them leads to another.
func TestKubeProxyOps(t *testing.T) {
	have := kubeProxyHost(t)
	var lines []string
	for _, op := range kubeProxyOps(have) {
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
	got := serving(have)
	if want := []string{"iptables chain filter KUBE-NODEPORTS", "iptables chain nat KUBE-POSTROUTING", "iptables chain nat KUBE-SERVICES"}; !slices.Equal(got, want) {
		t.Errorf("serving: %q", got)
	}
}

// TestServicesOps removes weft's rules of services and leaves what is about pods, and what is others'.
func TestServicesOps(t *testing.T) {
	var lines []string
	for _, op := range servicesOps(kubeProxyHost(t)) {
		lines = append(lines, op.String())
	}
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, "-X KUBE-PORTALS-CONTAINER") || !strings.Contains(text, "-D PREROUTING") || len(lines) > 3 ||
		strings.Contains(text, "WEFT-KEEP") || strings.Contains(text, "KUBE-SERVICES") {
		t.Errorf("got\n%s", text)
	}
}

func TestTwoProxiesAreNamed(t *testing.T) {
	tables := servingTables([]kernelnft.BaseChain{
		{Family: nft.IPv4, Table: "kube-proxy"}, {Family: nft.IPv4, Table: "kube-proxy"}, {Family: nft.INet, Table: "weft"}, {Family: nft.INet, Table: "kube-proxy"},
	})
	out := warnKubeProxy(nil, tables)
	if len(out) == 0 || !strings.Contains(out[0], "table ip kube-proxy. If weft is to serve") || !strings.Contains(out[0], "weft cleanup --kube-proxy") {
		t.Errorf("%q", out)
	}
}

// TestIPVSLeft: what kube-proxy leaves in mode ipvs is told of.
func TestIPVSLeft(t *testing.T) {
	dir := t.TempDir()
	if left := ipvsLeft(dir, dir); len(left) != 0 {
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
	if left := ipvsLeft(dir, dir); !slices.Equal(left, []string{"link kube-ipvs0"}) {
		t.Errorf("an empty list of servers: %q", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "net/ip_vs"), []byte(heading+"TCP  0AFE0001:01BB rr\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if left := ipvsLeft(dir, dir); len(left) != 2 {
		t.Errorf("%q", left)
	}
}
