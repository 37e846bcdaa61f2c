package ways

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/wireguard"
)

// dualStack is a node and a peer with both families under wireguard, as the configuration has it.
func dualStack(t *testing.T, config string) (f facts.Facts, own, peer api.Lease) {
	t.Helper()
	c, _, err := lease.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48",` + config + `}`))
	if err != nil {
		t.Fatal(err)
	}
	f = facts.Facts{Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("fd17::31")}}
	f.TakeNetwork(c)
	at := func(name, v4, v6, public, publicV6, key string) api.Lease {
		l := api.Lease{
			Node: name, Subnet: netip.MustParsePrefix(v4), SubnetV6: netip.MustParsePrefix(v6), PublicIP: netip.MustParseAddr(public),
			PublicIPv6: netip.MustParseAddr(publicV6),
		}
		kind := func(o overlay.Options) lease.Kind {
			k := lease.Kind{Type: lease.WireGuard, WGKey: strings.Repeat(key, 42) + "A="}
			k.Port, k.PortV6 = wireguard.Ports(o)
			return k
		}
		l = kind(f.Options).Of(l)
		if f.Other != nil {
			l = lease.Announce(l, kind(f.Other.Options))
		}
		return l
	}
	own = at("a", "10.5.1.0/24", "fd00:5:0:1::/64", "172.17.42.31", "fd17::31", "a")
	return f, own, at("b", "10.5.2.0/24", "fd00:5:0:2::/64", "172.17.42.32", "fd17::32", "b")
}

func wireguardPlan(t *testing.T, f facts.Facts, own, peer api.Lease) string {
	t.Helper()
	all := []api.Lease{own, peer}
	used, err := Of(f, own, all)
	if err != nil {
		t.Fatal(err)
	}
	s := netstate.Union(planWays(f, used, all)...).Select(func(o netstate.Object) bool {
		return o.Kind() == netstate.KindRoute || o.Kind() == netstate.KindTunnel
	})
	text := strings.ReplaceAll(s.String(), strings.Repeat("b", 42)+"A=", "B")
	return "\n" + strings.ReplaceAll(text, " proto 119", "")
}

// TestPortsOfBothFamilies: of two families each has a stand-in when its port changes, and the device it has when not.
func TestPortsOfBothFamilies(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"prepare both", `"Backend":{"Type":"wireguard"},"NextBackend":{"Type":"wireguard","ListenPort":7000,"ListenPortV6":7001},"Change":"x"`, `
route 10.5.0.0/16 dev flannel-wg
route 10.5.2.0/24 dev flannel-wg
route fd00:5:0:2::/64 dev flannel-wg-v6
route fd00:5::/48 dev flannel-wg-v6
tunnel 10.5.2.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer B
tunnel fd00:5:0:2::/64 dev flannel-wg-v6 local [::]:51821 remote [fd17::32]:51821 peer B
tunnel 10.5.2.0/24 dev weft-wg local 0.0.0.0:7000 remote 172.17.42.32:7000 peer B keepalive 25
tunnel fd00:5:0:2::/64 dev weft-wg-v6 local [::]:7001 remote [fd17::32]:7001 peer B keepalive 25
`},
		{"leave both", `"Backend":{"Type":"wireguard","ListenPort":7000,"ListenPortV6":7001},"PreviousBackend":{"Type":"wireguard"},"Change":"x"`, `
route 10.5.0.0/16 dev weft-wg
route 10.5.2.0/24 dev weft-wg
route fd00:5:0:2::/64 dev weft-wg-v6
route fd00:5::/48 dev weft-wg-v6
tunnel 10.5.2.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer B
tunnel fd00:5:0:2::/64 dev flannel-wg-v6 local [::]:51821 remote [fd17::32]:51821 peer B
tunnel 10.5.2.0/24 dev weft-wg local 0.0.0.0:7000 remote 172.17.42.32:7000 peer B
tunnel fd00:5:0:2::/64 dev weft-wg-v6 local [::]:7001 remote [fd17::32]:7001 peer B
`},
		{"one family", `"Backend":{"Type":"wireguard","ListenPort":7000},"PreviousBackend":{"Type":"wireguard"},"Change":"x"`, `
route 10.5.0.0/16 dev weft-wg
route 10.5.2.0/24 dev weft-wg
route fd00:5:0:2::/64 dev flannel-wg-v6
route fd00:5::/48 dev flannel-wg-v6
tunnel 10.5.2.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer B
tunnel fd00:5:0:2::/64 dev flannel-wg-v6 local [::]:51821 remote [fd17::32]:51821 peer B
tunnel 10.5.2.0/24 dev weft-wg local 0.0.0.0:7000 remote 172.17.42.32:7000 peer B
`},
		{"the mode with another port", `"Backend":{"Type":"wireguard"},"NextBackend":{"Type":"wireguard","ListenPort":7000,"Mode":"ipv4"},"Change":"x"`, `
route 10.5.0.0/16 dev flannel-wg
route 10.5.2.0/24 dev flannel-wg
route fd00:5:0:2::/64 dev flannel-wg-v6
route fd00:5::/48 dev flannel-wg-v6
tunnel 10.5.2.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer B
tunnel fd00:5:0:2::/64 dev flannel-wg-v6 local [::]:51821 remote [fd17::32]:51821 peer B
tunnel 10.5.2.0/24 dev weft-wg local 0.0.0.0:7000 remote 172.17.42.32:7000 peer B keepalive 25
tunnel fd00:5:0:2::/64 dev weft-wg local 0.0.0.0:7000 remote 172.17.42.32:7000 peer B keepalive 25
`},
	} {
		f, own, peer := dualStack(t, c.config)
		if got := wireguardPlan(t, f, own, peer); got != c.want {
			t.Errorf("%s:%swant%s", c.name, got, c.want)
		}
	}
}

// TestPeerThatTakesNoPart: one that tells only the old port, as flannel does, is reached from the new device, which begins the session; the
// old device still takes what it sends, and does not call it back.
func TestPeerThatTakesNoPart(t *testing.T) {
	f, own, peer := dualStack(t, `"Backend":{"Type":"wireguard","ListenPort":7000},"PreviousBackend":{"Type":"wireguard"},"Change":"x"`)
	peer.Also, peer.WGPort = "", 51820
	want := `
route 10.5.0.0/16 dev weft-wg
route 10.5.2.0/24 dev weft-wg
route fd00:5:0:2::/64 dev flannel-wg-v6
route fd00:5::/48 dev flannel-wg-v6
tunnel 10.5.2.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer B
tunnel fd00:5:0:2::/64 dev flannel-wg-v6 local [::]:51821 remote [fd17::32]:51821 peer B keepalive 25
tunnel 10.5.2.0/24 dev weft-wg local 0.0.0.0:7000 remote 172.17.42.32:51820 peer B keepalive 25
`
	if got := wireguardPlan(t, f, own, peer); got != want {
		t.Errorf("%swant%s", got, want)
	}
	f.Other = nil // the change is over
	if got := wireguardPlan(t, f, own, peer); !strings.Contains(got, "dev flannel-wg local 0.0.0.0:7000 remote 172.17.42.32:51820") ||
		!strings.Contains(got, "route 10.5.2.0/24 dev flannel-wg\n") {
		t.Errorf("cut off:%s", got)
	}
}

// TestLeftPortIsTakenAMoment: after the change no lease names the port any more; what is under way to it is taken, and nothing is sent there.
func TestLeftPortIsTakenAMoment(t *testing.T) {
	f, own, peer := dualStack(t, `"Backend":{"Type":"wireguard","ListenPort":7000},"PreviousBackend":{"Type":"wireguard"},"Change":"x"`)
	before := wireguardPlan(t, f, own, peer)
	f.Other.Left = Told(f, []api.Lease{own, peer})
	own.Also, peer.Also = "", ""
	if got := wireguardPlan(t, f, own, peer); got != before {
		t.Errorf("%swant%s", got, before)
	}
}
