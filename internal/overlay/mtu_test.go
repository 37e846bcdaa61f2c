package overlay_test

import (
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/hostgw"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// TestRouteMTU: every backend gives the routes to a peer behind a narrow path the MTU that fits there, and others none.
func TestRouteMTU(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	self := overlay.Self{
		Lease: api.Lease{Subnet: p("172.16.28.0/24"), SubnetV6: p("fd10:0:0:1c::/64"), PublicIP: a("172.17.42.31"), PublicIPv6: a("fd17::31"), WGKey: "own"},
		Dev:   "eth0", MTU: 1500, Addr: a("172.17.42.31"), AddrV6: a("fd17::31"),
		Connected: []netip.Prefix{p("172.17.0.0/16"), p("fd17::/64")},
		Paths:     map[netip.Addr]int{a("172.17.42.32"): 1400, a("fd17::32"): 1300, a("172.17.42.33"): 1500},
	}
	peer := func(kind, n, key string) api.Lease {
		return api.Lease{
			Subnet: p("172.16." + n + ".0/24"), SubnetV6: p("fd10:0:0:" + n + "::/64"), PublicIP: a("172.17.42." + n), PublicIPv6: a("fd17::" + n),
			BackendType: kind, VNI: 1, VTEPMAC: "02:00:00:00:00:" + n, VTEPMACv6: "02:00:00:00:06:" + n, WGKey: key,
		}
	}
	for _, x := range []struct {
		name    string
		backend overlay.Backend
		kind    string
		direct  bool
		v4, v6  int
	}{
		{"vxlan", vxlan.Backend{}, "vxlan", false, 1350, 1280}, // 1300 - 70 is less than IPv6 allows
		{"vxlan, direct", vxlan.Backend{}, "vxlan", true, 1400, 1300},
		{"host-gw", hostgw.Backend{}, "host-gw", false, 1400, 1300},
		{"udp, both families over IPv4", udp.Backend{}, "", false, 1372, 1372},
		{"wireguard", wireguard.Backend{}, "wireguard", false, 1320, 1280},
	} {
		self.Options.DirectRouting = x.direct
		s := x.backend.Plan(self, []api.Lease{peer(x.kind, "32", "a"), peer(x.kind, "33", "b")})
		want := map[string]int{"172.16.32.0/24": x.v4, "fd10:0:0:32::/64": x.v6, "172.16.33.0/24": 0, "fd10:0:0:33::/64": 0}
		for _, r := range netstate.Of[netstate.Route](s) {
			if mtu, ok := want[r.Dst.String()]; ok {
				delete(want, r.Dst.String())
				if r.MTU != mtu {
					t.Errorf("%s: %s, want MTU %d", x.name, r, mtu)
				}
			}
		}
		if len(want) > 0 {
			t.Errorf("%s: no route: %v", x.name, want)
		}
	}
	self.Options.MTU = 9000
	if got := self.OuterMTU(); got != 1500 || !self.TooWide() {
		t.Errorf("MTU 9000 configured over an interface of 1500: %d", got)
	}
	self.Options.MTU = 1400
	if got := self.OuterMTU(); got != 1400 || self.TooWide() {
		t.Errorf("MTU 1400 configured over an interface of 1500: %d", got)
	}
	if got := self.RouteMTU(p("172.16.32.0/24"), a("172.17.42.32"), 50); got != 0 {
		t.Errorf("a path as wide as the MTU configured: %d", got)
	}
}
