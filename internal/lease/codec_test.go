package lease

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
)

// wgKey is 32 bytes of base64; no secret.
const wgKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

var (
	v4 = netip.MustParsePrefix("172.16.28.0/24")
	v6 = netip.MustParsePrefix("fd00:5:0:1::/64")
	p4 = netip.MustParseAddr("172.17.42.31")
	p6 = netip.MustParseAddr("2001:db8::31")
)

// codecs are leases with the bytes flannel writes for them (FLANNEL.md section 1).
var codecs = []struct {
	name  string
	lease api.Lease
	key   string
	value string
}{
	{
		"vxlan",
		api.Lease{Subnet: v4, PublicIP: p4, BackendType: VXLAN, VNI: 1, VTEPMAC: "b2:69:2c:67:63:b8"},
		"172.16.28.0-24",
		`{"PublicIP":"172.17.42.31","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"}}`,
	},
	{
		"vxlan dual stack",
		api.Lease{
			Subnet: v4, SubnetV6: v6, PublicIP: p4, PublicIPv6: p6, BackendType: VXLAN, VNI: 1,
			VTEPMAC: "b2:69:2c:67:63:b8", VTEPMACv6: "b2:69:2c:67:63:b9",
		},
		"172.16.28.0-24&fd00:5:0:1::-64",
		`{"PublicIP":"172.17.42.31","PublicIPv6":"2001:db8::31","BackendType":"vxlan",` +
			`"BackendData":{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"},"BackendV6Data":{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b9"}}`,
	},
	{
		"vxlan v6 only",
		api.Lease{SubnetV6: v6, PublicIPv6: p6, BackendType: VXLAN, VNI: 9, VTEPMACv6: "b2:69:2c:67:63:b9"},
		"0.0.0.0-0&fd00:5:0:1::-64",
		`{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::31","BackendType":"vxlan","BackendV6Data":{"VNI":9,"VtepMAC":"b2:69:2c:67:63:b9"}}`,
	},
	{
		"host-gw",
		api.Lease{Subnet: v4, PublicIP: p4, BackendType: HostGW},
		"172.16.28.0-24", `{"PublicIP":"172.17.42.31","PublicIPv6":null,"BackendType":"host-gw"}`,
	},
	{
		"udp",
		api.Lease{Subnet: v4, PublicIP: p4},
		"172.16.28.0-24", `{"PublicIP":"172.17.42.31","PublicIPv6":null}`,
	},
	{
		"wireguard dual stack",
		api.Lease{
			Subnet: v4, SubnetV6: v6, PublicIP: p4, PublicIPv6: p6, BackendType: WireGuard, WGKey: wgKey, WGPort: 51820, WGPortV6: 51821,
		},
		"172.16.28.0-24&fd00:5:0:1::-64",
		`{"PublicIP":"172.17.42.31","PublicIPv6":"2001:db8::31","BackendType":"wireguard",` +
			`"BackendData":{"PublicKey":"` + wgKey + `","Port":51820},"BackendV6Data":{"PublicKey":"` + wgKey + `","Port":51821}}`,
	},
}

func TestCodec(t *testing.T) {
	for _, tt := range codecs {
		t.Run(tt.name, func(t *testing.T) {
			if got := Key(tt.lease); got != tt.key {
				t.Errorf("key %q, want %q", got, tt.key)
			}
			data, err := Marshal(tt.lease)
			if err != nil || string(data) != tt.value {
				t.Errorf("value %s, %v\n want %s", data, err, tt.value)
			}
			got, err := Unmarshal(tt.key, []byte(tt.value))
			if err != nil || got != tt.lease {
				t.Errorf("read %+v, %v\nwant %+v", got, err, tt.lease)
			}
		})
	}
}

func TestUnmarshalTakes(t *testing.T) {
	got, err := Unmarshal("10.5.1.0-24", []byte(
		` {"publicip":"10.0.0.1","BackendType":"vxlan","backenddata":{"vni":1,"vtepmac":"AA:BB:CC:00:11:22","More":1},"New":[1]} `))
	want := api.Lease{
		Subnet: netip.MustParsePrefix("10.5.1.0/24"), PublicIP: netip.MustParseAddr("10.0.0.1"), BackendType: VXLAN, VNI: 1,
		VTEPMAC: "aa:bb:cc:00:11:22",
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for _, value := range []string{
		`{"PublicIP":"10.0.0.1","BackendType":"extension","BackendData":"any text"}`,
		`{"PublicIP":"10.0.0.1","BackendType":"tencent-vpc","BackendData":[{}]}`,
		`{"PublicIP":"10.0.0.1","BackendType":"wireguard","BackendData":{"PublicKey":"` + wgKey + `"}}`,
	} {
		if _, err := Unmarshal("10.5.1.0-24", []byte(value)); err != nil {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	const ip = `{"PublicIP":"10.0.0.1","BackendType":"vxlan","BackendData":`
	for _, tt := range []struct{ key, value, want string }{
		{"10.5.1.0", `{}`, `lease key "10.5.1.0": subnet "10.5.1.0" has no length: write it as 172.16.48.0-24`},
		{"10.5.1.7-24", `{}`, `has host bits: write it as 10.5.1.0-24`},
		{"10.5.1.0-32", `{}`, `has the length "32": write a number from 1 to 31`},
		{"10.5.1.0-024", `{}`, `is not in its short form: write it as 10.5.1.0-24`},
		{"10.5.1.0-+24", `{}`, `is not in its short form`},
		{"010.5.1.0-24", `{}`, `is not an IPv4 network`},
		{"0.0.0.0-0", `{}`, `has the length "0"`},
		{"10.5.1.0-24&fd00:0::-64", `{}`, `is not in its short form: write it as fd00::-64`},
		{"10.5.1.0-24&fd00::1-64", `{}`, `has host bits`},
		{"10.5.1.0-24&::ffff:10.0.0.0-112", `{}`, `is not an IPv6 network`},
		{"10.5.1.0-24&", `{}`, `has no length`},
		{"10.5.1.0-24", ``, `lease 10.5.1.0-24: empty`},
		{"10.5.1.0-24", `{}`, `PublicIP: missing`},
		{"10.5.1.0-24", `{"PublicIP":7}`, `lease 10.5.1.0-24: PublicIP: 7 is not text`},
		{"10.5.1.0-24", `{"PublicIP":"fd00::1"}`, `PublicIP: "fd00::1" is not an IPv4 address`},
		{"10.5.1.0-24", `{"PublicIP":"127.0.0.1"}`, `PublicIP: "127.0.0.1" cannot be reached from another host`},
		{"10.5.1.0-24", `{"PublicIP":"224.0.0.1"}`, `cannot be reached`},
		{"10.5.1.0-24", `{"PublicIPv6":"fe80::1%eth0"}`, `PublicIPv6: "fe80::1%eth0" has a zone`},
		{"10.5.1.0-24", `{"PublicIP":"10.0.0.1","BackendType":"vxlan"}`, `BackendData.VtepMAC: missing`},
		{"10.5.1.0-24", ip + `{"VNI":1,"VtepMAC":"aa:bb:cc:00:11:22:33:44"}}`, `BackendData.VtepMAC: "aa:bb:cc:00:11:22:33:44" is not an Ethernet address`},
		{"10.5.1.0-24", ip + `{"VNI":1,"VtepMAC":"aabb:cc:00:11:2:2"}}`, `is not an Ethernet address`},
		{"10.5.1.0-24", ip + `{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}}`, `is a group address`},
		{"10.5.1.0-24", ip + `{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}}`, `is the zero address`},
		{"10.5.1.0-24", ip + `{"VNI":-1,"VtepMAC":"aa:bb:cc:00:11:22"}}`, `BackendData.VNI: -1 is out of range`},
		{"10.5.1.0-24", ip + `"text"}`, `BackendData: expected a JSON object`},
		{"10.5.1.0-24", `{"PublicIP":"10.0.0.1","BackendType":"wireguard"}`, `BackendData.PublicKey: missing`},
		{"10.5.1.0-24", `{"PublicIP":"10.0.0.1","BackendType":"wireguard","BackendData":{"PublicKey":"AAAA"}}`, `BackendData.PublicKey: "AAAA" is not a wireguard key`},
		{"10.5.1.0-24", `{"PublicIP":"10.0.0.1","PublicIP":"10.0.0.2"}`, `PublicIP: given twice`},
	} {
		_, err := Unmarshal(tt.key, []byte(tt.value))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.key) {
			t.Errorf("%s %s:\n got %v\nwant %s", tt.key, tt.value, err, tt.want)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	for want, l := range map[string]api.Lease{
		"no subnet":                  {PublicIP: p4},
		"PublicIP: missing":          {Subnet: v4},
		"VtepMAC: missing":           {Subnet: v4, PublicIP: p4, BackendType: VXLAN, VNI: 1},
		"is not a wireguard key":     {Subnet: v4, PublicIP: p4, BackendType: WireGuard, WGKey: "x"},
		"has host bits":              {Subnet: netip.MustParsePrefix("10.0.0.1/24"), PublicIP: p4},
		"is not an Ethernet address": {Subnet: v4, PublicIP: p4, BackendType: VXLAN, VTEPMAC: "x"},
		"cannot be reached":          {Subnet: v4, PublicIP: netip.MustParseAddr("127.0.0.1")},
	} {
		if _, err := Marshal(l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", l, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	c, _, err := ParseConfig([]byte(`{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for in, ok := range map[string]bool{
		"172.16.28.0-24": true, "172.16.28.0-26": true, "8.8.8.0-24": false, "172.0.0.0-8": false, "172.16.0.0-12": false,
		"172.16.28.0-24&fd00::-64": true, "0.0.0.0-0&fd00::-64": false,
	} {
		four, six, err := ParseKey(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(api.Lease{Subnet: four, SubnetV6: six}); (err == nil) != ok {
			t.Errorf("%s: %v, want accepted %t", in, err, ok)
		}
	}
}

// FuzzKey: a key that is taken is the one Key writes.
func FuzzKey(f *testing.F) {
	for _, c := range codecs {
		f.Add(c.key)
	}
	f.Add("10.5.1.0-024")
	f.Add("x10.5.1.0-24&fd00:0::-64")
	f.Fuzz(func(t *testing.T, key string) {
		four, six, err := ParseKey(key)
		if err != nil {
			return
		}
		if got := Key(api.Lease{Subnet: four, SubnetV6: six}); got != key {
			t.Fatalf("%q reads as %s and %s, which is %q", key, four, six, got)
		}
	})
}

// FuzzValue: a value that is taken can be written, and reads the same again.
func FuzzValue(f *testing.F) {
	for _, c := range codecs {
		f.Add(c.key, []byte(c.value))
	}
	f.Add("10.5.1.0-24", []byte(`{"publicip":"10.0.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"AA:BB:CC:00:11:22:33:44"}}`))
	for _, also := range alsos {
		f.Add("172.16.28.0-24", []byte(`{"PublicIP":"172.17.42.31","Also":`+also+`}`))
	}
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		l, err := Unmarshal(key, data)
		if err != nil {
			return
		}
		if slow, err := readValue(data, l.Subnet, l.SubnetV6); err != nil || slow != l {
			t.Fatalf("%s %s: %+v, but field by field %+v, %v", key, data, l, slow, err)
		}
		if l.BackendType == UDP || l.BackendType == Alloc {
			l.BackendType = "" // written without
		}
		out, err := Marshal(l)
		if err != nil {
			// Only leases whose data is of the other family than the subnet cannot be written back.
			if l.Subnet.IsValid() && l.SubnetV6.IsValid() {
				t.Fatalf("%s %s: %v", key, data, err)
			}
			return
		}
		again, err := Unmarshal(Key(l), out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		twice, err := Marshal(again)
		if err != nil || string(twice) != string(out) {
			t.Fatalf("%s, then %s, %v", out, twice, err)
		}
	})
}
