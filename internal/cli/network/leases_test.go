package network

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/store/etcd"
	"weft/internal/store/etcd/etcdtest"
)

func TestLeases(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	at := "--etcd-endpoints=" + server.URL
	if _, _, err := weft(t, "", "reserve", "172.16.5.0/24", "--public-ip=172.17.42.35", at); !errors.Is(err, etcd.ErrNoConfig) {
		t.Errorf("reserve without a config: %v", err)
	}
	if _, _, err := weft(t, `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`, "apply", "-f", "-", at); err != nil {
		t.Fatal(err)
	}
	raw := server.Client()
	granted, err := raw.Grant(t.Context(), 86400)
	if err != nil {
		t.Fatal(err)
	}
	const prefix = "/coreos.com/network/subnets/"
	const live = `{"PublicIP":"172.17.42.31","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"}}`
	for key, value := range map[string]string{"172.16.28.0-24": live, "8.8.8.0-24": strings.ReplaceAll(live, ".31", ".32")} {
		if _, err := raw.Put(t.Context(), prefix+key, value, clientv3.WithLease(granted.ID)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ want, args string }{
		{"172.16.5.0-24 reserved\n", "reserve 172.16.5.0/24 --public-ip=172.17.42.35"},
		{"172.16.5.0-24 unchanged\n", "reserve 172.16.5.0/24 --public-ip=172.17.42.35"},
		{"172.16.28.0-24 reserved\n", "reserve 172.16.28.0/24 --public-ip=172.17.42.31"},
	} {
		if out, _, err := weft(t, "", append(strings.Fields(tt.args), at)...); err != nil || out != tt.want {
			t.Errorf("%s: %q, %v", tt.args, out, err)
		}
	}
	for _, tt := range []struct{ want, args string }{
		{"subnet is taken: by lease 172.16.28.0-24 of 172.17.42.31", "reserve 172.16.28.0/24 --public-ip=172.17.42.36"},
		{"172.17.42.35 has the reservation 172.16.5.0-24 already", "reserve 172.16.6.0/24 --public-ip=172.17.42.35"},
		{"outside the network 172.16.0.0/12", "reserve 10.0.0.0/24 --public-ip=172.17.42.36"},
		{"the network's subnets are /24", "reserve 172.16.6.0/25 --public-ip=172.17.42.36"},
		{"want a network without host bits", "reserve 172.16.6.1/24 --public-ip=172.17.42.36"},
		{"--public-ip=here: want the host's own unicast address", "reserve 172.16.6.0/24 --public-ip=here"},
		{"public-ip public-ipv6", "reserve 172.16.6.0/24"},
		{"no lease of this subnet", "release 172.16.9.0/24 --yes"},
		{"not confirmed: answer y", "release 172.16.5.0/24"},
	} {
		if _, _, err := weft(t, "", append(strings.Fields(tt.args), at)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	checkList(t, at)
	if out, ask, err := weft(t, "y\n", "release", "172.16.5.0/24", at); err != nil || out != "172.16.5.0-24 released\n" ||
		!strings.Contains(ask, "Delete the reservation 172.16.5.0-24 of 172.17.42.35?") {
		t.Errorf("release: %q, %q, %v", out, ask, err)
	}
	out, _, err := weft(t, "", "__complete", "release", at, "")
	if err != nil || !strings.Contains(out, "172.16.28.0/24\t172.17.42.31") || strings.Contains(out, "172.16.5.0/24") {
		t.Errorf("completion: %q, %v", out, err)
	}
}

func checkList(t *testing.T, at string) {
	t.Helper()
	out, _, err := weft(t, "", "leases", at, "-o", "json")
	var rows []row
	if err != nil || json.Unmarshal([]byte(out), &rows) != nil || len(rows) != 3 {
		t.Fatalf("leases -o json: %v\n%s", err, out)
	}
	if r := rows[0]; r.Subnet != "8.8.8.0/24" || r.Permanent || r.Expires.IsZero() || r.Reason != "outside" {
		t.Errorf("first row %+v", r)
	}
	if r := rows[1]; r.Subnet != "172.16.5.0/24" || !r.Permanent || !r.Idle || r.Refused != "" {
		t.Errorf("second row %+v", r)
	}
	if r := rows[2]; r.Subnet != "172.16.28.0/24" || !r.Permanent || r.Idle || r.Backend != "vxlan" || !r.Expires.IsZero() {
		t.Errorf("third row %+v", r)
	}
	out, _, err = weft(t, "", "leases", at)
	if err != nil || !strings.Contains(out, "172.16.5.0/24   -     172.17.42.35  -        never, not taken up  -") ||
		!strings.Contains(out, "outside Network 172.16.0.0/12") {
		t.Errorf("leases: %v\n%s", err, out)
	}
}
