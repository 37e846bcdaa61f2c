package overlay_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/overlay"
)

func lease(i int, subnet string) api.Lease {
	return api.Lease{
		Node: fmt.Sprintf("node%d", i), Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.AddrFrom4([4]byte{172, 17, 0, byte(i)}),
		BackendType: "vxlan", VNI: 1, VTEPMAC: fmt.Sprintf("02:00:00:00:00:%02x", i),
	}
}

func self() overlay.Self {
	return overlay.Self{
		Lease: lease(200, "10.200.0.0/24"), Network: netip.MustParsePrefix("10.0.0.0/8"), NetworkV6: netip.MustParsePrefix("fd10::/48"),
		Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.200"), netip.MustParseAddr("172.17.0.201"), netip.MustParseAddr("fd17::c9")},
		Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
	}
}

func TestPeersRefuse(t *testing.T) {
	with := func(l api.Lease, change func(*api.Lease)) api.Lease {
		change(&l)
		return l
	}
	for _, c := range []struct {
		name  string
		lease api.Lease
		want  string
	}{
		{"no subnet", api.Lease{Node: "x"}, "no subnet"},
		{"outside", lease(1, "8.8.8.0/24"), "subnet 8.8.8.0/24 is outside the network 10.0.0.0/8"},
		{"wider than the network", lease(1, "0.0.0.0/0"), "outside the network"},
		{"outside v6", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.SubnetV6 = netip.MustParsePrefix("2001:db8::/64") }), "outside"},
		{"MAC of eight bytes", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.VTEPMAC = "02:00:00:00:00:00:00:01" }), "VTEP MAC"},
		{"group MAC", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.VTEPMAC = "01:00:5e:00:00:01" }), "VTEP MAC"},
		{"zero MAC v6", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.VTEPMACv6 = "00:00:00:00:00:00" }), "VTEP MAC"},
		{"own address", lease(200, "10.1.0.0/24"), "public address is this node's own"},
		{"another own address", lease(201, "10.1.0.0/24"), "public address 172.17.0.201 is one of this node's own"},
		{"another own address v6", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.PublicIPv6 = netip.MustParseAddr("fd17::c9") }), "public address fd17::c9 is one of"},
		{"broadcast address", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.PublicIP = netip.MustParseAddr("172.17.255.255") }), "172.17.255.255 is no host's"},
		{"own subnet", lease(1, "10.200.0.0/25"), "overlaps that of this node"},
		{"same subnet", lease(99, "10.50.0.0/24"), "overlaps that of node50"},
		{"holds another", lease(99, "10.50.0.0/16"), "overlaps that of node50"},
		{"inside another", lease(99, "10.50.0.128/25"), "overlaps that of node50"},
		{"same MAC", with(lease(99, "10.99.0.0/24"), func(l *api.Lease) { l.VTEPMAC = lease(50, "10.50.0.0/24").VTEPMAC }), "another host's"},
		{"same MAC, IPv6 alone", with(lease(99, "10.99.0.0/24"), func(l *api.Lease) {
			l.VTEPMAC, l.VTEPMACv6, l.PublicIPv6 = "", "02:00:00:00:06:50", netip.MustParseAddr("fd17::99")
		}), "VTEP MAC 02:00:00:00:06:50 is another host's"},
		{"same key", with(lease(99, "10.99.0.0/24"), func(l *api.Lease) { l.VTEPMAC, l.WGKey = "", "key50" }), "WireGuard key key50 is another host's"},
		{"own MAC", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.VTEPMAC = lease(200, "10.200.0.0/24").VTEPMAC }), "is this node's own"},
		{"own key", with(lease(1, "10.1.0.0/24"), func(l *api.Lease) { l.VTEPMAC, l.WGKey = "", "key200" }), "WireGuard key key200 is this node's own"},
	} {
		good, s := lease(50, "10.50.0.0/24"), self()
		good.VTEPMACv6, good.PublicIPv6, good.WGKey = "02:00:00:00:06:50", netip.MustParseAddr("fd17::50"), "key50"
		s.Lease.WGKey = "key200"
		peers, refused := overlay.Peers(s, []api.Lease{c.lease, good, s.Lease})
		if len(peers) != 1 || peers[0].Node != good.Node {
			t.Errorf("%s: peers %v, want node50 alone", c.name, peers)
		}
		if len(refused) != 1 || !strings.Contains(refused[0].String(), c.want) {
			t.Errorf("%s: refused %v, want it to say %q", c.name, refused, c.want)
		}
	}
}

// TestPeersOrder gives the same leases in any order: the same ones stay, no two of them overlap, and none is refused without a reason.
func TestPeersOrder(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var leases []api.Lease
		for i := range 20 {
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(4)), 0}), 14+r.IntN(12)).Masked()
			l := lease(1+i, subnet.String())
			l.VTEPMAC = lease(1+r.IntN(40), "10.0.0.0/24").VTEPMAC
			if r.IntN(2) == 0 {
				l.SubnetV6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x10, 0, 0, 0, 0, 0, byte(r.IntN(32))}), 60+r.IntN(5)).Masked()
				l.PublicIPv6 = netip.AddrFrom16([16]byte{0xfd, 0x17, 15: byte(i)})
				l.VTEPMACv6 = l.VTEPMAC
			}
			leases = append(leases, l)
		}
		first, refused := overlay.Peers(self(), leases)
		if len(first)+len(refused) != len(leases) {
			t.Fatalf("seed %d: %d peers and %d refused of %d", seed, len(first), len(refused), len(leases))
		}
		for i, a := range first {
			for _, b := range first[:i] {
				if a.Subnet.Overlaps(b.Subnet) || a.SubnetV6.IsValid() && a.SubnetV6.Overlaps(b.SubnetV6) || a.VTEPMAC == b.VTEPMAC {
					t.Fatalf("seed %d: %v and %v collide", seed, a, b)
				}
			}
		}
		r.Shuffle(len(leases), func(i, j int) { leases[i], leases[j] = leases[j], leases[i] })
		again, _ := overlay.Peers(self(), leases)
		if !slices.Equal(first, again) {
			t.Fatalf("seed %d: in another order\n%v\nand\n%v", seed, first, again)
		}
	}
}

func TestPeersLeaveTheirInputAlone(t *testing.T) {
	leases := []api.Lease{lease(3, "10.3.0.0/24"), lease(2, "10.3.0.0/24"), lease(1, "10.1.0.0/24")}
	before := slices.Clone(leases)
	overlay.Peers(self(), leases)
	if !slices.Equal(before, leases) {
		t.Error("leases were reordered")
	}
}
