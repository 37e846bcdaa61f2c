package claim

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/lease"
)

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

func config(t *testing.T, text string) lease.Config {
	t.Helper()
	c, _, err := lease.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rec is a lease of the store; etcdLease 0 is a reservation.
func rec(key, ip string, etcdLease int64) Record {
	v4, v6, err := lease.ParseKey(key)
	if err != nil {
		panic(err)
	}
	return Record{Key: key, Lease: api.Lease{Subnet: v4, SubnetV6: v6, PublicIP: addr(ip)}, EtcdLease: etcdLease, Created: 5, Modified: 7}
}

const walkthrough = `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`

func TestChoose(t *testing.T) {
	self := api.Lease{PublicIP: addr("172.17.42.31"), VTEPMAC: "02:00:00:00:00:01"}
	asked := self
	asked.Subnet = pfx("172.16.28.0/24")
	withMAC := rec("172.16.40.0-24", "172.17.42.99", 1)
	withMAC.Lease.VTEPMAC = self.VTEPMAC
	unreadable := Record{Key: "172.16.28.0-24", Lease: api.Lease{Subnet: pfx("172.16.28.0/24")}, Refused: "broken"}
	underlay := routes(pfx("172.17.0.0/16"), pfx("172.17.42.31/32"))
	tests := []struct {
		name string
		q    Request
		want string // key, then what is done
	}{
		{"first free", Request{Self: self}, "172.16.1.0-24 claim"},
		{"asked for", Request{Self: asked}, "172.16.28.0-24 claim"},
		{"asked for, held by us", Request{Self: asked, Records: []Record{rec("172.16.28.0-24", "172.17.42.31", 1)}}, "172.16.28.0-24 take"},
		{
			"asked for, held by another",
			Request{Self: asked, Records: []Record{rec("172.16.28.0-24", "172.17.42.32", 1)}},
			"asked-for subnet 172.16.28.0/24: overlaps the lease 172.16.28.0-24 of 172.17.42.32: ask for another",
		},
		{
			"asked for, held by who knows",
			Request{Self: asked, Records: []Record{unreadable}},
			"asked-for subnet 172.16.28.0/24: overlaps the lease 172.16.28.0-24 of an unknown host: ask for another",
		},
		{"our address wins over the previous subnet", Request{
			Self: self, Previous: pfx("172.16.9.0/24"), Records: []Record{rec("172.16.50.0-24", "172.17.42.31", 1)},
		}, "172.16.50.0-24 take"},
		{"ours does not fit any more", Request{
			Self: self, Previous: pfx("172.16.9.0/24"), Records: []Record{rec("10.9.9.0-24", "172.17.42.31", 1)},
		}, "172.16.9.0-24 claim delete 10.9.9.0-24"},
		{
			"ours has another length",
			Request{Self: self, Records: []Record{rec("172.16.1.0-25", "172.17.42.31", 1)}},
			"172.16.1.0-24 claim delete 172.16.1.0-25",
		},
		{"previous", Request{Self: self, Previous: pfx("172.16.68.0/24")}, "172.16.68.0-24 claim"},
		{"previous is another's", Request{
			Self: self, Previous: pfx("172.16.68.0/24"), Records: []Record{rec("172.16.68.0-24", "172.17.42.32", 1)},
		}, "172.16.1.0-24 claim"},
		{
			"previous with our VTEP under an old address",
			Request{Self: self, Previous: pfx("172.16.40.0/24"), Records: []Record{withMAC}},
			"172.16.40.0-24 take",
		},
		{"previous does not fit", Request{Self: self, Previous: pfx("10.0.1.0/24")}, "172.16.1.0-24 claim"},
		{"reservation first, and it stays one", Request{
			Self: self, Records: []Record{rec("172.16.5.0-24", "172.17.42.31", 1), rec("172.16.90.0-24", "172.17.42.31", 0)},
		}, "172.16.90.0-24 take permanent"},
		{"another's reservation", Request{Self: self, Records: []Record{rec("172.16.1.0-24", "172.17.42.32", 0)}}, "172.16.2.0-24 claim"},
		{
			"a reservation that does not fit is not deleted",
			Request{Self: self, Records: []Record{rec("10.9.9.0-24", "172.17.42.31", 0)}},
			"172.16.1.0-24 claim",
		},
		{"a larger lease is in the way", Request{Self: self, Records: []Record{rec("172.16.0.0-20", "172.17.42.32", 1)}}, "172.16.16.0-24 claim"},
		{"smaller leases are in the way", Request{
			Self: self, Records: []Record{rec("172.16.1.128-25", "172.17.42.32", 1), rec("172.16.2.4-30", "172.17.42.32", 1)},
		}, "172.16.3.0-24 claim"},
		{"our lease inside the underlay is given up", Request{
			Self: self, Avoid: underlay, Records: []Record{rec("172.17.9.0-24", "172.17.42.31", 1)},
		}, "172.16.1.0-24 claim delete 172.17.9.0-24"},
		{"the routes of our old subnet are ours", Request{
			Self: self, Avoid: append(underlay, routes(pfx("172.16.28.0/24"), pfx("172.16.28.1/32"), pfx("172.16.28.5/32"))...), Previous: pfx("172.16.28.0/24"),
		}, "172.16.28.0-24 claim"},
		{
			"a route wider than the network does not count",
			Request{Self: self, Avoid: routes(pfx("0.0.0.0/0"), pfx("172.0.0.0/8"))},
			"172.16.1.0-24 claim",
		},
		{
			"a route as wide as the network does",
			Request{Self: self, Avoid: routes(pfx("172.16.0.0/12"))},
			"no free subnet in 172.16.1.0 to 172.31.255.0 /24",
		},
		{
			"moving from what we hold",
			Request{Self: asked, Own: "172.16.5.0-24", Records: []Record{rec("172.16.5.0-24", "172.17.42.31", 1)}},
			"172.16.28.0-24 claim delete 172.16.5.0-24",
		},
		{"a remembered lease is not there to be taken", Request{
			Self: self, Records: []Record{{Key: "172.16.5.0-24", Lease: rec("172.16.5.0-24", "172.17.42.31", 1).Lease, EtcdLease: 1, Gone: true}},
		}, "172.16.5.0-24 claim"},
		{"public addresses are no pod subnets", Request{
			Self: self, Config: config(t, `{"Network":"172.17.42.0/24","SubnetLen":28,"Backend":{"Type":"vxlan"}}`),
		}, "172.17.42.32-28 claim"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.q.Config == (lease.Config{}) {
				tt.q.Config = config(t, walkthrough)
			}
			tt.q.Rand = func(int) int { return 0 }
			if got := describe(Choose(tt.q)); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func describe(d Decision, err error) string {
	if err != nil {
		return err.Error()
	}
	out := lease.Key(d.Lease) + " claim"
	if d.Take != nil {
		out = lease.Key(d.Lease) + " take"
	}
	if d.Permanent {
		out += " permanent"
	}
	for _, r := range d.Delete {
		out += " delete " + r.Key
	}
	return out
}

func TestChooseDualStack(t *testing.T) {
	c := config(t, `{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`)
	self := api.Lease{PublicIP: addr("172.17.42.31"), PublicIPv6: addr("2001:db8::31")}
	for _, tt := range []struct {
		name    string
		records []Record
		want    string
	}{
		{"both free", nil, "10.5.1.0-24&fd00:5:0:1::-64 claim"},
		{
			"each family on its own",
			[]Record{rec("10.5.1.0-24", "172.17.42.32", 1), rec("10.5.9.0-24&fd00:5:0:1::-64", "172.17.42.33", 1)},
			"10.5.2.0-24&fd00:5:0:2::-64 claim",
		},
		{"IPv6 is added to what we have", []Record{rec("10.5.7.0-24", "172.17.42.31", 1)}, "10.5.7.0-24&fd00:5:0:1::-64 claim delete 10.5.7.0-24"},
		{
			"and a reservation stays one",
			[]Record{rec("10.5.7.0-24", "172.17.42.31", 0)},
			"10.5.7.0-24&fd00:5:0:1::-64 claim permanent delete 10.5.7.0-24",
		},
		{"ours", []Record{rec("10.5.7.0-24&fd00:5:0:9::-64", "172.17.42.31", 1)}, "10.5.7.0-24&fd00:5:0:9::-64 take"},
	} {
		q := Request{Config: c, Self: self, Records: tt.records, Rand: func(int) int { return 0 }}
		if got := describe(Choose(q)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	only6 := config(t, `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`)
	q := Request{Config: only6, Self: self, Rand: func(int) int { return 0 }}
	if got := describe(Choose(q)); got != "0.0.0.0-0&fd00:5:0:1::-64 claim" {
		t.Errorf("IPv6 only: got %s", got)
	}
}

// TestUnderlay: the walkthrough's network contains its own underlay; no choice ever touches it.
func TestUnderlay(t *testing.T) {
	c := config(t, `{"Network":"172.16.0.0/12","SubnetMin":"172.16.250.0","Backend":{"Type":"vxlan"}}`)
	underlay := pfx("172.17.0.0/16")
	q := Request{Config: c, Self: api.Lease{PublicIP: addr("172.17.42.31")}, Avoid: routes(underlay)}
	for i := range choices {
		q.Rand = func(int) int { return i }
		d, err := Choose(q)
		if err != nil || d.Lease.Subnet.Overlaps(underlay) {
			t.Fatalf("choice %d: %s, %v", i, d.Lease.Subnet, err)
		}
	}
}

func TestFree(t *testing.T) {
	r := lease.Range{Network: pfx("fd00::/16"), SubnetLen: 64, Min: addr("fd00:0:0:1::"), Max: addr("fd00:ffff:ffff:ffff::")}
	// A blocker of 2^40 subnets is one step.
	got := free(r, []netip.Prefix{pfx("fd00::/24"), pfx("fd00:100:0:1::/64"), pfx("fd00:0:0:7::/64")}, 2)
	if len(got) != 2 || got[0] != pfx("fd00:100::/64") || got[1] != pfx("fd00:100:0:2::/64") {
		t.Errorf("got %v", got)
	}
	full := lease.Range{Network: pfx("255.255.255.0/24"), SubnetLen: 26, Min: addr("255.255.255.64"), Max: addr("255.255.255.192")}
	if got := free(full, []netip.Prefix{pfx("255.255.255.128/26")}, 100); len(got) != 2 || got[1] != pfx("255.255.255.192/26") {
		t.Errorf("at the end of the address space: %v", got)
	}
	if got := free(full, []netip.Prefix{pfx("255.255.255.0/24")}, 100); len(got) != 0 {
		t.Errorf("nothing is free: %v", got)
	}
}

// FuzzChoose: whatever is in the store, a chosen subnet fits and overlaps nothing of anybody else.
func FuzzChoose(f *testing.F) {
	f.Add(uint32(0xac100100), uint8(24), uint32(0xac110000), uint8(16), uint8(3), uint8(24))
	f.Add(uint32(0), uint8(0), uint32(0xac100000), uint8(13), uint8(200), uint8(28))
	f.Fuzz(func(t *testing.T, held uint32, heldLen uint8, route uint32, routeLen, pick, subnetLen uint8) {
		r := lease.Range{Network: pfx("172.16.0.0/12"), SubnetLen: 14 + int(subnetLen%17)}
		next, _ := lease.Next(netip.PrefixFrom(r.Network.Addr(), r.SubnetLen))
		r.Min, r.Max = next.Addr(), netip.PrefixFrom(lease.Last(r.Network), r.SubnetLen).Masked().Addr()
		four := func(n uint32, bits uint8) netip.Prefix {
			a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			return netip.PrefixFrom(a, int(bits%33)).Masked()
		}
		other, avoid := four(held, heldLen), four(route, routeLen)
		q := Request{
			Config: lease.Config{EnableIPv4: true, V4: r}, Self: api.Lease{PublicIP: addr("192.0.2.1")},
			Records: []Record{{Key: "x", Lease: api.Lease{Subnet: other, PublicIP: addr("192.0.2.2")}, EtcdLease: 1}},
			Avoid:   routes(avoid), Rand: func(n int) int { return int(pick) % n },
		}
		d, err := Choose(q)
		if err != nil {
			return
		}
		got := d.Lease.Subnet
		if r.Fits(got) != nil || got.Overlaps(other) || (conflicts(avoid, r.Network) && got.Overlaps(avoid)) {
			t.Fatalf("chose %s with %s held and %s routed: %v", got, other, avoid, r.Fits(got))
		}
	})
}
