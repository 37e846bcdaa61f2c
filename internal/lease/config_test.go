package lease

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseConfig(t *testing.T) {
	pfx, addr := netip.MustParsePrefix, netip.MustParseAddr
	vxlan := Backend{Type: VXLAN, VNI: 1}
	tests := []struct {
		name, in string
		want     Config
		warnings []string // a part of each, in order
	}{
		{"walkthrough", `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`, Config{
			EnableIPv4: true, Backend: vxlan,
			V4: Range{pfx("172.16.0.0/12"), 24, addr("172.16.1.0"), addr("172.31.255.0")},
		}, nil},
		{"any case", `{"network":"10.5.0.0/16","SUBNETLEN":26,"backend":{"type":"VXLAN","vni":7,"PORT":4789,"directrouting":true}}`, Config{
			EnableIPv4: true, Backend: Backend{Type: VXLAN, VNI: 7, Port: 4789, DirectRouting: true},
			V4: Range{pfx("10.5.0.0/16"), 26, addr("10.5.0.64"), addr("10.5.255.192")},
		}, nil},
		{"no backend is udp", `{"Network":"10.5.0.0/16"}`, Config{
			EnableIPv4: true, Backend: Backend{Type: UDP, Port: 8285},
			V4: Range{pfx("10.5.0.0/16"), 24, addr("10.5.1.0"), addr("10.5.255.0")},
		}, []string{`Backend: missing, which means type "udp"`}},
		{"longer than /22", `{"Network":"10.5.0.0/23","Backend":{"Type":"host-gw"}}`, Config{
			EnableIPv4: true, Backend: Backend{Type: HostGW},
			V4: Range{pfx("10.5.0.0/23"), 25, addr("10.5.0.128"), addr("10.5.1.128")},
		}, nil},
		{"smallest", `{"Network":"10.5.0.0/28","Backend":{"Type":"alloc"}}`, Config{
			EnableIPv4: true, Backend: Backend{Type: Alloc},
			V4: Range{pfx("10.5.0.0/28"), 30, addr("10.5.0.4"), addr("10.5.0.12")},
		}, nil},
		{"dual stack", `{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","Backend":{"Type":"wireguard","Mode":"auto"}}`, Config{
			EnableIPv4: true, EnableIPv6: true,
			Backend: Backend{Type: WireGuard, ListenPort: 51820, ListenPortV6: 51821, Mode: "auto"},
			V4:      Range{pfx("10.5.0.0/16"), 24, addr("10.5.1.0"), addr("10.5.255.0")},
			V6:      Range{pfx("fd00:5::/48"), 64, addr("fd00:5:0:1::"), addr("fd00:5:0:ffff::")},
		}, nil},
		{"v6 only, bounds", `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/60","IPv6SubnetMin":"fd00:5:0:2::","IPv6SubnetMax":"fd00:5:0:4::",
			"Backend":{"Type":"vxlan"}}`, Config{
			EnableIPv6: true, Backend: vxlan,
			V6: Range{pfx("fd00:5::/60"), 64, addr("fd00:5:0:2::"), addr("fd00:5:0:4::")},
		}, nil},
		{"host bits, foreign and unknown fields", `{"Network":"10.5.1.0/16","Colour":1,"IPv6Network":"fd00::/48","Backend":{"Type":"host-gw","VNI":3}}`, Config{
			EnableIPv4: true, Backend: Backend{Type: HostGW},
			V4: Range{pfx("10.5.0.0/16"), 24, addr("10.5.1.0"), addr("10.5.255.0")},
		}, []string{"host bits, read as 10.5.0.0/16", "IPv6 is not enabled", "Backend.VNI: backend host-gw", "Colour: not a field"}},
		{"null is absent", `{"Network":"10.5.0.0/16","SubnetLen":null,"SubnetMin":"0.0.0.0","Backend":{"Type":"vxlan","VNI":null}}`, Config{
			EnableIPv4: true, Backend: vxlan,
			V4: Range{pfx("10.5.0.0/16"), 24, addr("10.5.1.0"), addr("10.5.255.0")},
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings, err := ParseConfig([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if len(warnings) != len(tt.warnings) {
				t.Fatalf("warnings %q, want %q", warnings, tt.warnings)
			}
			for i, w := range warnings {
				if !strings.Contains(w, tt.warnings[i]) {
					t.Errorf("warning %q lacks %q", w, tt.warnings[i])
				}
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	const be = `,"Backend":{"Type":"vxlan"}}`
	for in, want := range map[string]string{
		``:                             `empty: expected a JSON object`,
		`[]`:                           `expected a JSON object, got []`,
		`{"Network":"10.0.0.0/8"`:      `JSON ends too early`,
		"{\n\"Network\":\n10,}":        `not JSON, line 3: invalid character`,
		`{"Network":"10.0.0.0/8"} x`:   `unexpected text after the closing brace`,
		`{"EnableIPv4":"yes"` + be:     `EnableIPv4: "yes" is not a yes or no: write true or false`,
		`{"Backend":{"Type":"vxlan"}}`: `Network: missing: write a network such as "10.244.0.0/16"`,
		`{"EnableIPv4":false` + be:     `EnableIPv4: false, and EnableIPv6 is not true`,
		`{"EnableIPv6":true,"Network":"10.0.0.0/8"` + be:                              `IPv6Network: missing`,
		`{"Network":10` + be:                                                          `Network: 10 is not text: put it in quotes`,
		`{"Network":"ten"` + be:                                                       `Network: "ten" is not an IPv4 network: write it as 10.244.0.0/16`,
		`{"Network":"fd00::/48"` + be:                                                 `Network: "fd00::/48" is not an IPv4 network`,
		`{"Network":"0.0.0.0/0"` + be:                                                 `Network: 0.0.0.0/0 is the whole address space`,
		`{"Network":"10.0.0.0/29"` + be:                                               `Network: 10.0.0.0/29 is too small to be split: write /28 or larger`,
		`{"Network":"10.0.0.0/16","network":"10.1.0.0/16"` + be:                       `network: given twice, as "10.0.0.0/16" and "10.1.0.0/16": keep one`,
		`{"Network":"10.0.0.0/16","SubnetLen":17` + be:                                `SubnetLen: 17 leaves fewer than four subnets in 10.0.0.0/16: write a number from 18 to 30`,
		`{"Network":"10.0.0.0/16","SubnetLen":31` + be:                                `SubnetLen: 31 is out of range: write a number from 0 to 30`,
		`{"Network":"10.0.0.0/16","SubnetLen":"24"` + be:                              `SubnetLen: "24" is not a whole number`,
		`{"Network":"10.0.0.0/16","SubnetMin":"10.1.0.0"` + be:                        `SubnetMin: 10.1.0.0 is outside the network 10.0.0.0/16`,
		`{"Network":"10.0.0.0/16","SubnetMax":"10.0.7.1"` + be:                        `SubnetMax: 10.0.7.1 is not the start of a /24 subnet: write 10.0.7.0`,
		`{"Network":"10.0.0.0/16","SubnetMin":"10.0.9.0","SubnetMax":"10.0.7.0"` + be: `SubnetMax: 10.0.7.0 is below SubnetMin 10.0.9.0`,
		`{"Network":"10.0.0.0/16","Backend":7}`:                                       `Backend: expected a JSON object, got 7`,
		`{"Network":"10.0.0.0/16","Backend":{}}`:                                      `Backend.Type: missing: write one of vxlan, host-gw`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"vxlam"}}`:                        `Backend.Type: "vxlam" is not a backend: write one of vxlan`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}`:         `Backend.VNI: 16777216 is out of range: write a number from 1 to 16777215`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","Port":70000}}`:           `Backend.Port: 70000 is out of range`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","MTU":100}}`:              `Backend.MTU: 100 is below 576`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard","Mode":"both"}}`:      `Backend.Mode: "both" is not a mode: write one of separate, auto`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard","PSK":"c2hvcnQ="}}`:   `Backend.PSK: not a wireguard key`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"ipsec","PSK":"short"}}`:          `Backend.PSK: 5 characters are too few`,
		`{"Network":"10.0.0.0/16","Backend":{"Type":"vxlan","GBP":1}}`:                `Backend.GBP: 1 is not a yes or no`,
	} {
		_, _, err := ParseConfig([]byte(in))
		if err == nil {
			t.Errorf("%s: accepted, want an error with %q", in, want)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %q\nwant %q", in, err, want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error has more than one line: %q", in, err)
		}
	}
}

func TestFits(t *testing.T) {
	c, _, err := ParseConfig([]byte(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.20.0","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"10.5.10.0/24": "",
		"10.5.20.0/24": "",
		"10.5.9.0/24":  "outside the leased part",
		"10.5.21.0/24": "outside the leased part",
		"10.5.12.0/25": "subnets are /24",
		"10.6.12.0/24": "outside the network",
		"10.5.12.1/24": "not a network address",
		"fd00:1::/64":  "subnets are /24",
	} {
		err := c.V4.Fits(netip.MustParsePrefix(in))
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
}

// FuzzConfig: whatever the bytes, there is a configuration whose bounds can be leased, or an error of one line.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`))
	f.Add([]byte(`{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","SubnetLen":26,"Backend":{"Type":"wireguard","PSK":""}}`))
	f.Add([]byte(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/124","Backend":{"Type":"udp","Port":1}}`))
	f.Add([]byte(`{"Network":"10.0.0.0/28","SubnetMin":"10.0.0.4","SubnetMax":"10.0.0.8"}`))
	f.Add([]byte("0\n0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := ParseConfig(data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("error has more than one line: %q", err)
			}
			return
		}
		for _, r := range []Range{c.V4, c.V6} {
			if !r.Network.IsValid() {
				continue
			}
			for _, a := range []netip.Addr{r.Min, r.Max} {
				if err := r.Fits(netip.PrefixFrom(a, r.SubnetLen)); err != nil {
					t.Fatalf("%+v: %v", c, err)
				}
			}
		}
		if again, _, err := ParseConfig(data); err != nil || again != c {
			t.Fatalf("read twice: %+v, then %+v, %v", c, again, err)
		}
	})
}

// TestPortsBesideEachOther: a change of wireguard's ports can be prepared unless two devices would need one port.
func TestPortsBesideEachOther(t *testing.T) {
	for _, c := range []struct {
		families, before, after string
		refused                 bool
	}{
		{"", ``, `"ListenPort":7000`, false},
		{"", ``, `"ListenPort":51821`, false}, // of no IPv6 device
		{"", ``, `"ListenPort":7000,"Mode":"auto"`, false},
		{"", `"PSK":"hRhLNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvBl7R8="`, ``, false}, // one kind
		{`"EnableIPv6":true,"IPv6Network":"fd10::/48",`, ``, `"ListenPort":7000`, false},
		{`"EnableIPv6":true,"IPv6Network":"fd10::/48",`, ``, `"ListenPort":51821,"ListenPortV6":7000`, true},
		{`"EnableIPv6":true,"IPv6Network":"fd10::/48",`, ``, `"Mode":"ipv4"`, true},
		{`"EnableIPv6":true,"IPv6Network":"fd10::/48",`, ``, `"ListenPort":51821,"Mode":"ipv4"`, true},
		{`"EnableIPv6":true,"IPv6Network":"fd10::/48",`, `"Mode":"auto"`, `"ListenPort":7000,"ListenPortV6":7001`, false},
	} {
		backend := func(options string) string {
			if options != "" {
				options = "," + options
			}
			return `{"Type":"wireguard"` + options + `}`
		}
		conf := `{"Network":"10.5.0.0/16",` + c.families + `"Backend":` + backend(c.before) + `,"NextBackend":` + backend(c.after) + `}`
		_, _, err := ParseConfig([]byte(conf))
		if c.refused != (err != nil) || err != nil && !strings.Contains(err.Error(), "NextBackend: Backend.ListenPort: 51") {
			t.Errorf("%s: %v", conf, err)
		}
	}
}
