package lease

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
)

func cidrs(l api.Lease) []netip.Prefix {
	var out []netip.Prefix
	for _, six := range []bool{false, true} {
		if p := Subnet(l, six); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

func TestAnnotations(t *testing.T) {
	for _, tt := range codecs {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.lease
			l.Node = "kube-node1"
			a, err := Annotations(l, AnnotationPrefix)
			if err != nil {
				t.Fatal(err)
			}
			got, err := FromNode(api.Node{Name: "kube-node1", PodCIDRs: cidrs(l), Annotations: a}, AnnotationPrefix)
			if err != nil || got != l {
				t.Errorf("%v reads as %+v, %v\nwant %+v", a, got, err, l)
			}
		})
	}
	a, err := Annotations(codecs[0].lease, AnnotationPrefix)
	want := map[string]string{
		"flannel.alpha.coreos.com/kube-subnet-manager": "true",
		"flannel.alpha.coreos.com/backend-type":        "vxlan",
		"flannel.alpha.coreos.com/backend-data":        `{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"}`,
		"flannel.alpha.coreos.com/public-ip":           "172.17.42.31",
	}
	if err != nil || !maps.Equal(a, want) {
		t.Errorf("got %v, %v\nwant %v", a, err, want)
	}
	if a, _ := Annotations(codecs[3].lease, "x/"); a["x/backend-data"] != "null" {
		t.Errorf("host-gw: %v, want backend-data null", a)
	}
}

func TestFromNodeRefuses(t *testing.T) {
	base := map[string]string{
		"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "172.17.42.31", "backend-data": `{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"}`,
	}
	for _, tt := range []struct {
		name, value string
		pods        []netip.Prefix
		want        string
	}{
		{"public-ip", "none", []netip.Prefix{v4}, `node n1: annotation flannel.alpha.coreos.com/public-ip: "none" is not an IPv4 address`},
		{"backend-data", "null", []netip.Prefix{v4}, `VtepMAC: missing`},
		{"backend-data", "{", []netip.Prefix{v4}, `annotation flannel.alpha.coreos.com/backend-data: JSON ends too early`},
		{"", "", nil, `node n1: spec.podCIDRs: empty`},
		{"", "", []netip.Prefix{v4, netip.MustParsePrefix("10.0.0.0/24")}, `are of one family: keep one`},
		{"", "", []netip.Prefix{netip.MustParsePrefix("10.0.0.7/24")}, `10.0.0.7/24 is not a network address: write 10.0.0.0/24`},
	} {
		n := api.Node{Name: "n1", PodCIDRs: tt.pods, Annotations: map[string]string{}}
		for k, v := range base {
			n.Annotations[AnnotationPrefix+k] = v
		}
		if tt.name != "" {
			n.Annotations[AnnotationPrefix+tt.name] = tt.value
		}
		if _, err := FromNode(n, AnnotationPrefix); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%s: got %v, want %q", tt.name, tt.value, err, tt.want)
		}
	}
	if _, err := FromNode(api.Node{Name: "n1"}, AnnotationPrefix); !errors.Is(err, ErrNotManaged) {
		t.Errorf("no annotations: got %v, want ErrNotManaged", err)
	}
}

func TestPublicFromNode(t *testing.T) {
	n := api.Node{Name: "n1", Annotations: map[string]string{
		AnnotationPrefix + "public-ip-overwrite": "203.0.113.1", AnnotationPrefix + "node-public-ipv6": "2001:db8::1",
	}}
	got, err := PublicFromNode(n, AnnotationPrefix)
	if want := (Public{Publish: netip.MustParseAddr("203.0.113.1"), UseV6: netip.MustParseAddr("2001:db8::1")}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	n.Annotations[AnnotationPrefix+"node-public-ip"] = "eth0"
	if _, err := PublicFromNode(n, AnnotationPrefix); err == nil || !strings.Contains(err.Error(), `node-public-ip: "eth0"`) {
		t.Errorf("got %v", err)
	}
}

// FuzzAnnotations: a lease that is read can be written, and reads the same again.
func FuzzAnnotations(f *testing.F) {
	for _, also := range alsos {
		f.Add("host-gw", "null", "null", "172.17.42.31", "", also)
	}
	f.Add("vxlan", `{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b8"}`, `{"VNI":1,"VtepMAC":"b2:69:2c:67:63:b9"}`, "172.17.42.31", "2001:db8::1", "")
	f.Add("wireguard", `{"PublicKey":"`+wgKey+`","Port":51820}`, "", "172.17.42.31", "", "null")
	f.Add("host-gw", "null", "null", "172.17.42.31", "", "")
	f.Fuzz(func(t *testing.T, kind, data, data6, ip, ip6, also string) {
		n := api.Node{Name: "n1", PodCIDRs: []netip.Prefix{v4, v6}, Annotations: map[string]string{
			AnnotationPrefix + annManaged: "true", AnnotationPrefix + annType: kind, AnnotationPrefix + annData: data,
			AnnotationPrefix + annV6Data: data6, AnnotationPrefix + annPublicIP: ip, AnnotationPrefix + annPublicIPv6: ip6,
			AlsoAnnotation: also,
		}}
		l, err := FromNode(n, AnnotationPrefix)
		if err != nil {
			return
		}
		if n.Annotations, err = Annotations(l, AnnotationPrefix); err != nil {
			t.Fatalf("%+v: %v", l, err)
		}
		if again, err := FromNode(n, AnnotationPrefix); err != nil || !same(again, l) {
			t.Fatalf("%+v written and read is %+v, %v", l, again, err)
		}
	})
}

// same compares two leases but for a VNI that no VTEP goes with.
func same(a, b api.Lease) bool {
	if a.BackendType != VXLAN && a.BackendType != L2 {
		a.VNI, b.VNI = 0, 0
	}
	return a == b
}

// TestAnnotationPrefix: a prefix is completed as flannel does.
func TestAnnotationPrefix(t *testing.T) {
	for text, want := range map[string]string{
		"flannel.alpha.coreos.com": AnnotationPrefix, "flannel.alpha.coreos.com/": AnnotationPrefix,
		"flannel.example.com/blue": "flannel.example.com/blue-", "flannel.example.com/blue-": "flannel.example.com/blue-",
		"": "", "flannel": "", "a.b/c/d": "", "A.b": "", "a b.c": "", "-a.b": "", "a.b/-c": "", "a.b/ö": "",
	} {
		got, err := ParseAnnotationPrefix(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}
