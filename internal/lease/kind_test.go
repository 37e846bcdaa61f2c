package lease

import (
	"strings"
	"testing"

	"weft/internal/api"
)

// alsos are further kinds as leases name them.
var alsos = []string{
	`[{"Type":"wireguard","Port":51820,"PortV6":51821,"PublicKey":"` + wgKey + `","Ready":"k3f9"}]`,
	`[{"Type":"vxlan","VNI":1,"Port":8472,"InForce":true},{"Type":"vxlan","VNI":1,"Port":4789,"VtepMAC":"b2:69:2c:67:63:b8"}]`,
	`[{"Type":"host-gw"},{"Type":"udp","Port":8285}]`,
	`[{"type":"VXLAN"},{"Type":"carrier-pigeon","Port":7}]`, `[]`, `[{}]`, `null`, `7`,
}

func TestKinds(t *testing.T) {
	base := api.Lease{Subnet: v4, SubnetV6: v6, PublicIP: p4, PublicIPv6: p6, BackendType: VXLAN, VNI: 1, VTEPMAC: "b2:69:2c:67:63:b8"}
	plain, err := Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	wg := Kind{Type: WireGuard, WGKey: wgKey, Port: 51820, PortV6: 51821, Ready: "k3f9"}
	l := Announce(base, Kind{Type: VXLAN, VNI: 1, Port: 8472, InForce: true}, wg)
	text, err := Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), strings.TrimSuffix(string(plain), "}")+`,"Also":[`) {
		t.Errorf("flannel's part differs: %s", text)
	}
	again, err := Unmarshal(Key(l), text)
	if err != nil || again != l {
		t.Fatalf("read again: %+v, %v", again, err)
	}
	kinds := Kinds(again)
	if len(kinds) != 2 || kinds[0].Port != 8472 || kinds[0].VTEPMAC != base.VTEPMAC || kinds[1] != wg {
		t.Errorf("kinds %+v", kinds)
	}
	as := kinds[1].Of(again)
	if as.BackendType != WireGuard || as.WGKey != wgKey || as.WGPortV6 != 51821 || as.VTEPMAC != "" || as.Subnet != v4 {
		t.Errorf("as wireguard: %+v", as)
	}
	if back := Announce(l); back != base {
		t.Errorf("without further kinds: %+v", back)
	}
	if got := Kinds(api.Lease{}); len(got) != 1 || got[0].Type != UDP {
		t.Errorf("flannel's udp lease: %+v", got)
	}
}

func TestKindsOfOthers(t *testing.T) {
	const head = `{"PublicIP":"172.17.42.31","Also":`
	for also, want := range map[string]string{
		`7`:                            "Also: 7 is not a list of kinds",
		`[7]`:                          "Also: 0: expected a JSON object, got 7",
		`[{"Type":"vxlan"}]`:           "Also: 0.VtepMAC: missing",
		`[{"Type":"wireguard"}]`:       "Also: 0.PublicKey: missing",
		`[{"Type":"udp","Port":-1}]`:   "Also: 0.Port: -1 is out of range",
		`[{"Type":"udp","Ready":"X"}]`: `Also: 0.Ready: "X" is not the name of a change`,
		`[{},{},{},{},{},{},{},{},{}]`: "9 kinds: at most 8",
	} {
		_, err := Unmarshal("172.16.28.0-24", []byte(head+also+"}"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", also, err, want)
		}
	}
	l, err := Unmarshal("172.16.28.0-24", []byte(head+`[{"Type":"carrier-pigeon"},{"Type":"udp","Port":8285,"Colour":1}]}`))
	if err != nil || l.Also != `[{"Type":"udp","Port":8285}]` {
		t.Errorf("kinds of a later version: %q, %v", l.Also, err)
	}
}

func TestTransitions(t *testing.T) {
	now := []byte(`{"Network":"10.5.0.0/16","Colour":1,"Backend":{"Type":"vxlan"},"Change":"old","previousbackend":{"Type":"udp"}}`)
	then := []byte(`{"Network":"10.5.0.0/16","backend":{"Type":"wireguard","ListenPort":7000}}`)
	text, err := Preparing(now, then, "k3f9")
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := ParseConfig(text)
	if err != nil || c.Backend.Type != VXLAN || c.Next.Type != WireGuard || c.Next.ListenPort != 7000 || c.Change != "k3f9" ||
		c.Previous.Type != "" || !strings.Contains(string(text), `"Colour":1`) {
		t.Errorf("preparing: %s: %+v, %v", text, c, err)
	}
	if text, err = Leaving(then, text, "k3f9"); err != nil {
		t.Fatal(err)
	}
	if c, _, err = ParseConfig(text); err != nil || c.Backend.Type != WireGuard || c.Previous.Type != VXLAN || c.Next.Type != "" {
		t.Errorf("leaving: %s: %+v, %v", text, c, err)
	}
	const head = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"},`
	for in, want := range map[string]string{
		`"NextBackend":{"Type":"ipsec","PSK":"` + strings.Repeat("x", 96) + `"}}`: `NextBackend: Backend.Type: "ipsec" can't be prepared`,
		`"NextBackend":{"Type":"udp"},"PreviousBackend":{"Type":"udp"}}`:          "one change at a time",
		`"NextBackend":{"Type":"udp","Port":"x"}}`:                                `NextBackend: Backend.Port: "x" is not a whole number`,
		`"NextBackend":{"Type":"udp"},"Change":"A B"}`:                            `Change: "A B" is not the name of a change`,
	} {
		if _, _, err := ParseConfig([]byte(head + in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestSupported(t *testing.T) {
	const head = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":`
	for in, want := range map[string]string{
		`{"Type":"vxlan"}`: "", `{"Type":"host-gw"}`: "", `{"Type":"udp"}`: "", `{"Type":"wireguard"}`: "", `{"Type":"l2"}`: "",
		`{"Type":"ipip"}`: "use host-gw", `{"Type":"alloc"}`: "only leases subnets", `{"Type":"extension"}`: "runs no commands",
		`{"Type":"ipsec","PSK":"` + strings.Repeat("x", 96) + `"}`: "use wireguard",
		`{"Type":"wireguard","MTU":1300}`:                          "Backend.MTU: 1300 leaves IPv6 pods less than 1280",
	} {
		c, _, err := ParseConfig([]byte(head + in + "}"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Supported(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}
