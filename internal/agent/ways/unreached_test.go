package ways

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// TestUnreached: a good lease that a backend makes no route for, or for one family only, has a reason that names the field; one with
// all its routes has none.
func TestUnreached(t *testing.T) {
	pub, far, six := addrs("172.17.42.32")[0], addrs("192.0.2.9")[0], addrs("fd17::32")[0]
	for _, x := range []struct {
		backend string
		o       overlay.Options
		edit    func(*api.Lease)
		want    string
	}{
		{lease.VXLAN, overlay.Options{}, nil, ""},
		{lease.VXLAN, overlay.Options{}, func(l *api.Lease) { l.PublicIP = far }, ""},
		{lease.VXLAN, overlay.Options{}, func(l *api.Lease) { l.SubnetV6 = netip.Prefix{} }, ""},
		{lease.VXLAN, overlay.Options{}, func(l *api.Lease) { l.PublicIP = netip.IPv4Unspecified() }, "PublicIP: missing, packets for 172.16.32.0/24"},
		{lease.VXLAN, overlay.Options{}, func(l *api.Lease) { l.PublicIPv6 = netip.Addr{} }, "PublicIPv6: missing, packets for fd10:0:0:32::/64"},
		{lease.VXLAN, overlay.Options{}, func(l *api.Lease) { l.VTEPMACv6 = "" }, "BackendV6Data.VtepMAC: missing"},
		{lease.VXLAN, overlay.Options{DirectRouting: true}, func(l *api.Lease) { l.VTEPMACv6 = "" }, ""},
		{lease.HostGW, overlay.Options{}, nil, ""},
		{lease.HostGW, overlay.Options{}, func(l *api.Lease) { l.PublicIP = far }, "PublicIP: 192.0.2.9 is in no network that eth0 is connected to"},
		{lease.HostGW, overlay.Options{}, func(l *api.Lease) { l.PublicIPv6 = addrs("2001:db8::9")[0] }, "PublicIPv6: 2001:db8::9 is in no network"},
		{lease.HostGW, overlay.Options{}, func(l *api.Lease) { l.PublicIPv6 = netip.Addr{} }, "PublicIPv6: missing"},
		{lease.UDP, overlay.Options{}, nil, ""},
		{lease.UDP, overlay.Options{}, func(l *api.Lease) { l.PublicIP = netip.Addr{} }, "PublicIP: missing"},
		{lease.WireGuard, overlay.Options{}, nil, ""},
		{lease.WireGuard, overlay.Options{}, func(l *api.Lease) { l.PublicIPv6 = netip.Addr{} }, `Mode "separate" sends packets for fd10:0:0:32::/64`},
		{lease.WireGuard, overlay.Options{Mode: "ipv4"}, func(l *api.Lease) { l.PublicIPv6 = netip.Addr{} }, ""},
		{lease.WireGuard, overlay.Options{Mode: "ipv6"}, func(l *api.Lease) { l.PublicIPv6 = netip.Addr{} }, `Mode "ipv6"`},
	} {
		f := facts.Facts{
			Dev: "eth0", MTU: 1500, Addrs: addrs("172.17.42.31", "fd17::31"), Backend: x.backend, Options: x.o,
			Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd17::/64")},
			Network:   netip.MustParsePrefix("172.16.0.0/12"), NetworkV6: netip.MustParsePrefix("fd10::/48"),
		}
		own := api.Lease{
			Subnet: netip.MustParsePrefix("172.16.31.0/24"), SubnetV6: netip.MustParsePrefix("fd10:0:0:31::/64"), PublicIP: f.Addr(false),
			PublicIPv6: f.Addr(true), BackendType: x.backend, VTEPMAC: "02:00:00:00:04:31", VTEPMACv6: "02:00:00:00:06:31", WGKey: "own",
		}
		l := api.Lease{
			Subnet: netip.MustParsePrefix("172.16.32.0/24"), SubnetV6: netip.MustParsePrefix("fd10:0:0:32::/64"), PublicIP: pub, PublicIPv6: six,
			BackendType: x.backend, VTEPMAC: "02:00:00:00:04:32", VTEPMACv6: "02:00:00:00:06:32", WGKey: "peer",
		}
		if x.backend == lease.VXLAN {
			own.VNI, l.VNI = 1, 1
		}
		subnets := facts.Valid(l.Subnet, l.SubnetV6)
		if x.edit != nil {
			x.edit(&l)
			subnets = facts.Valid(l.Subnet, l.SubnetV6)
		}
		used, err := Of(f, own, []api.Lease{own, l})
		if err != nil {
			t.Fatal(err)
		}
		got := Unreached(f, used, l)
		if x.want == "" && got != "" || !strings.Contains(got, x.want) {
			t.Errorf("%s %+v: %q, want %q", x.backend, l, got, x.want)
		}
		routes := 0
		for _, r := range netstate.Of[netstate.Route](netstate.Union(planWays(f, used, []api.Lease{own, l})...)) {
			if slices.Contains(subnets, r.Dst) {
				routes++
			}
		}
		if all := routes == len(subnets); all != (got == "") {
			t.Errorf("%s %+v: %d routes to %d subnets, but the reason is %q", x.backend, l, routes, len(subnets), got)
		}
	}
}

// TestLacks: a backend sends over the families of its pods, unless it can carry both over one.
func TestLacks(t *testing.T) {
	four, six := netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd10::/48")
	for _, x := range []struct {
		backend string
		mode    string
		v4, v6  netip.Prefix
		addrs   []netip.Addr
		want    string
	}{
		{lease.VXLAN, "", four, netip.Prefix{}, addrs("172.17.42.31"), ""},
		{lease.VXLAN, "", four, netip.Prefix{}, addrs("fe80::1"), "eth0 has no IPv4 address"},
		{lease.VXLAN, "", netip.Prefix{}, six, addrs("fd17::31"), ""},
		{lease.VXLAN, "", netip.Prefix{}, six, addrs("172.17.42.31"), "eth0 has no IPv6 address"},
		{lease.HostGW, "", four, six, addrs("172.17.42.31"), "eth0 has no IPv6 address"},
		{lease.L2, "", four, six, addrs("172.17.42.31"), ""},
		{lease.L2, "", four, six, addrs("fd17::31"), "eth0 has no IPv4 address"},
		{lease.UDP, "", four, six, addrs("fd17::31"), ""},
		{lease.WireGuard, "", four, netip.Prefix{}, addrs("fd17::31"), "eth0 has no IPv4 address"},
		{lease.WireGuard, "auto", four, six, addrs("fd17::31"), ""},
		{lease.WireGuard, "ipv6", four, netip.Prefix{}, addrs("fd17::31"), ""},
		{lease.WireGuard, "ipv4", netip.Prefix{}, six, addrs("fd17::31"), "eth0 has no IPv4 address"},
	} {
		f := facts.Facts{Dev: "eth0", Backend: x.backend, Options: overlay.Options{Mode: x.mode}, Network: x.v4, NetworkV6: x.v6, Addrs: x.addrs}
		if got := Lacks(f); !strings.HasPrefix(got, x.want) || x.want == "" && got != "" {
			t.Errorf("%s %q over %v: %q, want %q", x.backend, x.mode, x.addrs, got, x.want)
		}
	}
	f := facts.Facts{Dev: "eth0", Backend: lease.UDP, Network: four, Addrs: addrs("fd17::31"), Other: &facts.OtherBackend{Backend: lease.HostGW}}
	if got := Lacks(f); !strings.Contains(got, "no IPv4 address") {
		t.Errorf("a backend that is prepared: %q", got)
	}
}

// TestDoubts: an MTU that the interface can't carry and an address that host-gw can't be reached by are said.
func TestDoubts(t *testing.T) {
	f := facts.Facts{
		Dev: "eth0", MTU: 1500, Addrs: addrs("172.17.42.31", "172.17.42.32"), Network: netip.MustParsePrefix("172.16.0.0/12"), Backend: lease.HostGW,
	}
	for _, x := range []struct {
		edit func(*facts.Facts)
		want string
	}{
		{func(*facts.Facts) {}, ""},
		{func(f *facts.Facts) { f.PublicIP = f.Addrs[1] }, ""},
		{func(f *facts.Facts) { f.PublicIP = addrs("203.0.113.1")[0] }, "public address 203.0.113.1 is none of eth0"},
		{func(f *facts.Facts) { f.PublicIPv6 = addrs("2001:db8::1")[0] }, ""}, // the network has no IPv6
		{func(f *facts.Facts) { f.Backend, f.PublicIP = lease.VXLAN, addrs("203.0.113.1")[0] }, ""},
		{func(f *facts.Facts) { f.Backend, f.Options.MTU = lease.VXLAN, 9000 }, "Backend.MTU 9000 is more than eth0 carries: 1500 counts"},
		{func(f *facts.Facts) { f.Backend, f.Options.MTU = lease.VXLAN, 1500 }, ""},
		{func(f *facts.Facts) {
			f.Backend, f.NetworkV6, f.MTU = lease.VXLAN, netip.MustParsePrefix("fd10::/48"), 1300
		}, "eth0 leaves them 1230 bytes under backend vxlan, and IPv6 needs 1280 (RFC 8200): raise the interface's MTU to 1350"},
		{func(f *facts.Facts) {
			f.Backend, f.NetworkV6, f.MTU = lease.VXLAN, netip.MustParsePrefix("fd10::/48"), 1350
		}, ""},
	} {
		g := f
		x.edit(&g)
		got := strings.Join(Doubts(g), "\n")
		if !strings.Contains(got, x.want) || x.want == "" && got != "" {
			t.Errorf("%q, want %q", got, x.want)
		}
	}
}
