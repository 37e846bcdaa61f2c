package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/store/etcd"
	"weft/internal/store/etcd/etcdtest"
)

// weft runs "weft network ARGS".
func weft(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	c := Command()
	var out, errs bytes.Buffer
	c.SetArgs(args)
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&errs)
	c.SilenceErrors, c.SilenceUsage = true, true
	err = c.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func TestApplyAndShow(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	at := "--etcd-endpoints=" + server.URL
	if _, _, err := weft(t, "", "show", at); !errors.Is(err, etcd.ErrNoConfig) {
		t.Errorf("show of nothing: %v", err)
	}
	file := filepath.Join(t.TempDir(), "net-conf.json")
	if err := os.WriteFile(file, []byte(`{"Network": "172.16.0.0/12", "Colour": 1, "Backend": {"Type": "vxlan"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, err := weft(t, "", "apply", at, "-f", file)
	if err != nil || out != "/coreos.com/network/config configured\n" || errs != "warning: Colour: not a field of the network config, ignored\n" {
		t.Errorf("apply: %q, %q, %v", out, errs, err)
	}
	if out, _, err := weft(t, "", "apply", at, "-f", file); err != nil || out != "/coreos.com/network/config unchanged\n" {
		t.Errorf("apply again: %q, %v", out, err)
	}
	raw := server.Client()
	for key, value := range map[string]string{
		"172.16.28.0-24": `{"PublicIP":"172.17.42.31","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"}}`,
		"8.8.8.0-24":     `{"PublicIP":"172.17.42.32","PublicIPv6":null,"BackendType":"host-gw"}`,
	} {
		if _, err := raw.Put(t.Context(), "/coreos.com/network/subnets/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	out, _, err = weft(t, "", "show", at)
	want := `BACKEND  vxlan
NETWORK  172.16.0.0/12, /24 for each host from 172.16.1.0 to 172.31.255.0
WARNING  Colour: not a field of the network config, ignored

SUBNET          HOST          BACKEND  VTEP               RESERVED  PROBLEM
8.8.8.0/24      172.17.42.32  host-gw  -                  true      lease 8.8.8.0-24: subnet 8.8.8.0/24: outside Network 172.16.0.0/12: ` +
		`delete the lease or widen the network
172.16.28.0/24  172.17.42.31  vxlan    b2:69:2c:67:63:b8  true      -
`
	if err != nil || out != want {
		t.Errorf("show: %v\n%s\nwant\n%s", err, out, want)
	}
	out, _, err = weft(t, "", "show", at, "-o", "json")
	var doc document
	if err != nil || json.Unmarshal([]byte(out), &doc) != nil || len(doc.Leases) != 2 || doc.Leases[1].VTEPMAC != "b2:69:2c:67:63:b8" {
		t.Errorf("show -o json: %v\n%s", err, out)
	}
	const other = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	if _, _, err := weft(t, other, "apply", at, "-f", "-"); !errors.Is(err, etcd.ErrInUse) {
		t.Errorf("apply of another network: %v, want ErrInUse", err)
	}
	if out, errs, err := weft(t, other, "apply", at, "-f", "-", "--force"); err != nil || !strings.Contains(out, "configured") ||
		!strings.Contains(errs, "the host of lease 172.16.28.0-24") {
		t.Errorf("apply --force: %q, %q, %v", out, errs, err)
	}
}

func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		want  string
		stdin string
		args  []string
	}{
		{`required flag(s) "filename" not set`, "", []string{"apply"}},
		{"--filename: open /none/x", "", []string{"apply", "-f", "/none/x"}},
		{`-: network config: Network: "10" is not an IPv4 network: write it as 10.244.0.0/16`, `{"Network":"10"}`, []string{"apply", "-f", "-"}},
		{`--output: "yaml" is not a format`, "", []string{"show", "-o", "yaml"}},
		{`"ftp://x" is not an etcd endpoint`, "", []string{"show", "--etcd-endpoints", "ftp://x"}},
		{"unknown flag: --colour", "", []string{"show", "--colour"}},
	} {
		_, _, err := weft(t, tt.stdin, tt.args...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want %q", tt.args, err, tt.want)
		}
	}
}

// TestNotThere: an etcd that is not there is one line within the bound.
func TestNotThere(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	_, _, err := weft(t, "", "show", "--etcd-endpoints", "http://127.0.0.1:9")
	if err == nil || !strings.Contains(err.Error(), "etcd http://127.0.0.1:9: no answer within 5s (dial tcp 127.0.0.1:9: connect: connection refused)") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(begun); d > 15*time.Second {
		t.Errorf("it took %s", d)
	}
}

// TestWait: --wait bridges the time until etcd answers.
func TestWait(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	server.Stop()
	timer := time.AfterFunc(6*time.Second, server.Continue)
	defer timer.Stop()
	_, _, err := weft(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, "apply", "-f", "-", "--wait", "60s", "--etcd-endpoints", server.URL)
	if err != nil {
		t.Error(err)
	}
}
