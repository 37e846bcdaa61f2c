package udp_test

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/udp"
)

func self() overlay.Self {
	return overlay.Self{
		Lease:   api.Lease{Node: "kube-node1", Subnet: netip.MustParsePrefix("172.16.28.0/24"), PublicIP: netip.MustParseAddr("172.17.42.31")},
		Network: netip.MustParsePrefix("172.16.0.0/12"), Dev: "eth0", MTU: 1500, Addr: netip.MustParseAddr("172.17.42.31"),
	}
}

func lease(node, subnet, public, kind string) api.Lease {
	return api.Lease{Node: node, Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(public), BackendType: kind}
}

// TestPlan plans for a flannel host, a weft host under Kubernetes, one of another backend and one without address.
func TestPlan(t *testing.T) {
	leases := []api.Lease{
		lease("flannel", "172.16.78.0/24", "172.17.42.32", ""), lease("weft", "172.16.79.0/24", "172.17.42.33", "udp"),
		lease("other", "172.16.80.0/24", "172.17.42.34", "vxlan"), lease("nowhere", "172.16.81.0/24", "0.0.0.0", ""),
	}
	want := strings.TrimLeft(`
link flannel0 mtu 1472 alias weft:tunnel up type tun
sysctl net/ipv4/conf/flannel0/accept_local=1
sysctl net/ipv4/conf/flannel0/rp_filter=2
addr 172.16.28.0/32 dev flannel0
route 172.16.0.0/12 dev flannel0 proto 119
route 172.16.78.0/24 dev flannel0 proto 119
route 172.16.79.0/24 dev flannel0 proto 119
tunnel 172.16.78.0/24 dev flannel0 local 172.17.42.31:8285 remote 172.17.42.32:8285
tunnel 172.16.79.0/24 dev flannel0 local 172.17.42.31:8285 remote 172.17.42.33:8285
`, "\n")
	if got := (udp.Backend{}).Plan(self(), leases).String(); got != want {
		t.Errorf("plan\n%swant\n%s", got, want)
	}
	s := self()
	s.Options.Port = 9000
	tunnels := netstate.Of[netstate.Tunnel](udp.Backend{}.Plan(s, leases))
	if len(tunnels) != 2 || tunnels[0].Remote.Port() != 9000 || tunnels[0].Local.Port() != 9000 {
		t.Errorf("port 9000: tunnels %v", tunnels)
	}
}

// TestIPv6 plans where the hosts have IPv6 only.
func TestIPv6(t *testing.T) {
	s := self()
	s.Addr, s.AddrV6 = netip.Addr{}, netip.MustParseAddr("fd17::31")
	s.Lease.Subnet, s.Lease.SubnetV6 = netip.Prefix{}, netip.MustParsePrefix("fd10:0:0:1::/64")
	s.NetworkV6 = netip.MustParsePrefix("fd10::/48")
	peer := api.Lease{Node: "b", SubnetV6: netip.MustParsePrefix("fd10:0:0:2::/64"), PublicIPv6: netip.MustParseAddr("fd17::32")}
	plan := udp.Backend{}.Plan(s, []api.Lease{peer})
	for _, line := range []string{
		"link flannel0 mtu 1452 alias weft:tunnel up type tun\n", "route fd10::/48 dev flannel0 proto 119\n",
		"tunnel fd10:0:0:2::/64 dev flannel0 local [fd17::31]:8285 remote [fd17::32]:8285\n",
	} {
		if !strings.Contains(plan.String(), line) {
			t.Errorf("plan lacks %q:\n%s", line, plan)
		}
	}
	if strings.Contains(plan.String(), "ipv4") {
		t.Errorf("IPv4 without IPv4 pods:\n%s", plan)
	}
}

func TestPlanIsUnion(t *testing.T) {
	leases := []api.Lease{lease("a", "172.16.78.0/24", "172.17.42.32", ""), lease("b", "172.16.79.0/24", "172.17.42.33", "udp")}
	union := udp.Backend{}.Base(self())
	for _, l := range leases {
		union = netstate.Union(union, udp.Backend{}.Peer(self(), l))
	}
	if plan := (udp.Backend{}).Plan(self(), leases); !netstate.Equal(plan, union) {
		t.Errorf("plan\n%sunion\n%s", plan, union)
	}
}
