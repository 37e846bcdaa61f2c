package wireguard_test

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/wireguard"
)

const (
	keyA = "hRhLNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvBl7R8="
	keyB = "iMxCNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvB6dQI="
)

// dual is a host and a peer with both families.
func dual(mode string) (overlay.Self, api.Lease) {
	self := overlay.Self{
		Lease: api.Lease{
			Node: "a", BackendType: "wireguard", WGKey: keyA, Subnet: netip.MustParsePrefix("10.1.1.0/24"),
			SubnetV6: netip.MustParsePrefix("fd10:0:0:1::/64"), PublicIP: netip.MustParseAddr("172.17.42.31"),
			PublicIPv6: netip.MustParseAddr("2001:db8::31"),
		},
		Network: netip.MustParsePrefix("10.1.0.0/16"), NetworkV6: netip.MustParsePrefix("fd10::/48"), Dev: "eth0", MTU: 1500,
		Addr: netip.MustParseAddr("172.17.42.31"), AddrV6: netip.MustParseAddr("2001:db8::31"), Options: overlay.Options{Mode: mode},
	}
	peer := self.Lease
	peer.Node, peer.WGKey, peer.Subnet, peer.SubnetV6 = "b", keyB, netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd10:0:0:2::/64")
	peer.PublicIP, peer.PublicIPv6 = netip.MustParseAddr("172.17.42.32"), netip.MustParseAddr("2001:db8::32")
	peer.WGPort, peer.WGPortV6 = wireguard.Ports(self.Options)
	return self, peer
}

func TestPlanSeparate(t *testing.T) {
	self, peer := dual("")
	self.Options.Keepalive, self.Options.Userspace = 25, true
	want := strings.TrimLeft(`
link flannel-wg mtu 1420 alias weft:wireguard up type tun
link flannel-wg-v6 mtu 1420 alias weft:wireguard up type tun
sysctl net/ipv4/conf/flannel-wg/rp_filter=2
sysctl net/ipv6/conf/flannel-wg-v6/accept_ra=0
addr 10.1.1.0/32 dev flannel-wg
addr fd10:0:0:1::/128 dev flannel-wg-v6 nodad
route 10.1.0.0/16 dev flannel-wg proto 119
route 10.1.2.0/24 dev flannel-wg proto 119
route fd10:0:0:2::/64 dev flannel-wg-v6 proto 119
route fd10::/48 dev flannel-wg-v6 proto 119
tunnel 10.1.2.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer `+keyB+` keepalive 25
tunnel fd10:0:0:2::/64 dev flannel-wg-v6 local [::]:51821 remote [2001:db8::32]:51821 peer `+keyB+` keepalive 25
`, "\n")
	if got := (wireguard.Backend{}).Plan(self, []api.Lease{peer}).String(); got != want {
		t.Errorf("plan\n%swant\n%s", got, want)
	}
	self.Options.Userspace = false
	if got := (wireguard.Backend{}).Base(self).String(); !strings.Contains(got, "link flannel-wg mtu 1420 alias weft:wireguard up type wireguard\n") {
		t.Errorf("with the kernel's driver:\n%s", got)
	}
}

// TestEndpoints says for each mode where the packets of both families go.
func TestEndpoints(t *testing.T) {
	v4, v6 := "172.17.42.32:51820", "[2001:db8::32]:51820"
	for _, c := range []struct {
		name, mode string
		change     func(*overlay.Self, *api.Lease)
		want       string
	}{
		{"one device over IPv4", "ipv4", nil, v4},
		{"one device over IPv6", "ipv6", nil, v6},
		{"on the same link", "auto", func(s *overlay.Self, _ *api.Lease) {
			s.Connected = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}
		}, v4},
		{"only IPv6 is public", "auto", nil, v6},
		{"IPv4 is public too", "auto", func(_ *overlay.Self, l *api.Lease) { l.PublicIP = netip.MustParseAddr("203.0.113.2") }, "203.0.113.2:51820"},
		{"no IPv6 here", "auto", func(s *overlay.Self, _ *api.Lease) { s.AddrV6 = netip.Addr{} }, v4},
		{"no IPv4 there", "auto", func(_ *overlay.Self, l *api.Lease) { l.PublicIP = netip.Addr{} }, v6},
		{"an own port", "ipv4", func(_ *overlay.Self, l *api.Lease) { l.WGPort = 7000 }, "172.17.42.32:7000"},
		{"a writer that tells no port", "ipv4", func(s *overlay.Self, l *api.Lease) { l.WGPort, l.WGPortV6, s.Options.ListenPort = 0, 0, 6000 }, "172.17.42.32:6000"},
	} {
		self, peer := dual(c.mode)
		if c.change != nil {
			c.change(&self, &peer)
		}
		tunnels := netstate.Of[netstate.Tunnel](wireguard.Backend{}.Plan(self, []api.Lease{peer}))
		if len(tunnels) != 2 {
			t.Errorf("%s: tunnels %v, want one for each family", c.name, tunnels)
			continue
		}
		for _, u := range tunnels {
			if u.Remote.String() != c.want || u.Dev != "flannel-wg" {
				t.Errorf("%s: %s, want remote %s by flannel-wg", c.name, u, c.want)
			}
		}
	}
}

// TestNotPlanned has leases that no tunnel can be made for.
func TestNotPlanned(t *testing.T) {
	self, peer := dual("")
	for name, change := range map[string]func(*api.Lease){
		"another backend": func(l *api.Lease) { l.BackendType = "vxlan" },
		"no key":          func(l *api.Lease) { l.WGKey = "" },
		"our key":         func(l *api.Lease) { l.WGKey = keyA },
		"no address":      func(l *api.Lease) { l.PublicIP, l.PublicIPv6 = netip.IPv4Unspecified(), netip.Addr{} },
	} {
		l := peer
		change(&l)
		if got := netstate.Of[netstate.Tunnel](wireguard.Backend{}.Plan(self, []api.Lease{l})); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPlanIsUnion(t *testing.T) {
	for _, mode := range []string{"separate", "auto"} {
		self, peer := dual(mode)
		union := netstate.Union(wireguard.Backend{}.Base(self), wireguard.Backend{}.Peer(self, peer))
		if plan := (wireguard.Backend{}).Plan(self, []api.Lease{peer}); !netstate.Equal(plan, union) {
			t.Errorf("%s: plan\n%sunion\n%s", mode, plan, union)
		}
	}
}
