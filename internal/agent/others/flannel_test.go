package others

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/xt"
)

// flannelRules is what flanneld v0.28.10 makes with --ip-masq, as iptables-save shows it, beside rules of others.
const flannelRules = `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
:FLANNEL-FWD - [0:0]
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.1.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -j ACCEPT
-A FLANNEL-FWD -s 10.1.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
`

func TestFlannelOps(t *testing.T) {
	tables, err := xt.Parse(flannelRules)
	if err != nil {
		t.Fatal(err)
	}
	have := xt.Ruleset{V4: tables}
	ops := FlannelOps(have)
	var lines []string
	for _, op := range ops {
		lines = append(lines, op.String())
	}
	want := `iptables -t nat -D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
iptables -t nat -F FLANNEL-POSTRTG
iptables -t nat -X FLANNEL-POSTRTG
iptables -t nat -F FLANNEL-FWD
iptables -t nat -X FLANNEL-FWD
iptables -t filter -D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
iptables -t filter -F FLANNEL-FWD
iptables -t filter -X FLANNEL-FWD`
	if d := cmp.Diff(want, strings.Join(lines, "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if left := FlannelLeft(have); len(left) != 3 {
		t.Errorf("said to be left: %q", left)
	}
	after := xt.Apply(tables, ops)
	if left := FlannelOps(xt.Ruleset{V4: after}); len(left) > 0 {
		t.Errorf("still: %v", left)
	}
	if c := after.Chain("nat", "POSTROUTING"); c == nil || len(c.Rules) != 1 {
		t.Errorf("others' rules are gone: %+v", after)
	}
	if w := WarnFlannel(nil, FlannelLeft(xt.Ruleset{V4: after})); w != nil {
		t.Errorf("warning about nothing: %q", w)
	}
}

func TestRunning(t *testing.T) {
	proc := t.TempDir()
	for pid, name := range map[string]string{"17": "flanneld\n", "18": "weft\n"} {
		if err := os.MkdirAll(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"17"}, Running(proc, "flanneld")); d != "" {
		t.Error(d)
	}
}
