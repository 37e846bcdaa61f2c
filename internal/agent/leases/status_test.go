package leases

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/overlay"
)

// TestPathless: leases without a path are named with the reason, in a word and in a sentence.
func TestPathless(t *testing.T) {
	peer := func(n byte, edit func(*api.Lease)) api.Lease {
		l := api.Lease{
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, n, 0}), 24), PublicIP: netip.AddrFrom4([4]byte{172, 17, 42, n}),
			BackendType: "vxlan", VNI: 1, VTEPMAC: "02:00:00:00:00:" + string([]byte{'0' + n/10, '0' + n%10}),
		}
		edit(&l)
		return l
	}
	own := peer(31, func(*api.Lease) {})
	s := facts.Setting{Facts: facts.Facts{Node: "n1", Dev: "eth0", MTU: 1500, Network: netip.MustParsePrefix("172.16.0.0/12"), Backend: "vxlan", Options: overlay.Options{VNI: 1}}}
	all := []api.Lease{
		own,
		peer(32, func(*api.Lease) {}),
		peer(33, func(l *api.Lease) { l.PublicIP = own.PublicIP }),
		peer(34, func(l *api.Lease) { l.VTEPMAC = "02:00:00:00:00:32" }),
		peer(35, func(l *api.Lease) { l.BackendType, l.VTEPMAC = "ipsec", "" }),
	}
	got, err := pathlessOf(s, own, all)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ lease, kind, text string }{
		{"172.16.33.0-24", "public-address", "public address is this node's own"},
		{"172.16.34.0-24", "vtep-mac", "02:00:00:00:00:32 is another host's"},
		{"172.16.35.0-24", "backend", `"ipsec" is not used here`},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	far := peer(36, func(l *api.Lease) { l.BackendType, l.VTEPMAC, l.VNI = "host-gw", "", 0 })
	gw := s
	gw.Backend, gw.Addrs = "host-gw", []netip.Addr{own.PublicIP}
	one, err := pathlessOf(gw, own, []api.Lease{far})
	if err != nil || len(one) != 1 || one[0].Kind != "unreachable" || !strings.HasPrefix(one[0].Reason, "lease 172.16.36.0-24 of 172.17.42.36: PublicIP:") {
		t.Errorf("a host-gw peer behind a gateway: %+v %v", one, err)
	}
	for i, w := range want {
		if got[i].Lease != w.lease || got[i].Kind != w.kind || !strings.Contains(got[i].Reason, w.text) || got[i].Value == "" {
			t.Errorf("got %+v, want %+v", got[i], w)
		}
	}
	var p Pathless
	if fresh := p.set(got); len(fresh) != 3 {
		t.Errorf("%d are new", len(fresh))
	}
	if fresh := p.set(got[1:]); len(fresh) != 0 || len(p.Get()) != 2 {
		t.Errorf("again: %d are new, %d known", len(fresh), len(p.Get()))
	}
}

// TestLeaseShown: status, readyz and metrics say what is wrong and since when.
func TestLeaseShown(t *testing.T) {
	s := &Status{
		Phase: "held", Expires: time.Unix(1_700_000_000, 0), Problem: "the store does not answer", Since: time.Unix(1_600_000_000, 0),
		Stranded: []string{"default/a"}, Refused: []Refused{{Lease: "nonsense", Kind: "malformed", Reason: "lease key \"nonsense\""}},
	}
	var status, metrics strings.Builder
	Print(&status, s)
	WriteMetrics(&metrics, s)
	for text, want := range map[string][]string{
		status.String(): {
			"lease     held, renewed until 2023-11-14T22:13:20Z\n", "since 2020-09-13T12:26:40Z: the store does not answer\n",
			"pods with addresses of another subnet: default/a\n", "refused   nonsense (malformed): lease key \"nonsense\"\n",
		},
		metrics.String(): {
			"\nweft_lease_held 1\n", "\nweft_lease_problem 1\n", "\nweft_lease_expiry_timestamp_seconds 1.7e+09\n", "\nweft_pods_stranded 1\n",
			"\nweft_leases_refused{reason=\"malformed\"} 1\n", "\nweft_leases_refused{reason=\"host-route\"} 0\n",
		},
		strings.Join(s.Degraded(), "\n"): {"since 2020-09-13T12:26:40Z: the store does not answer\n", "1 pods have addresses", "1 leases of others are refused"},
	} {
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("no %q in\n%s", w, text)
			}
		}
	}
	var none *Status
	Print(&status, none)
	if none.Degraded() != nil {
		t.Error("nothing is degraded")
	}
}
