package vxlan_test

import (
	"fmt"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/vxlan"
)

func leases(n int) []api.Lease {
	out := make([]api.Lease, 0, n)
	for i := range n {
		a, b := byte(i>>8), byte(i)
		out = append(out, api.Lease{
			Node:       fmt.Sprintf("node%d", i),
			Subnet:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, a, b, 0}), 24),
			SubnetV6:   netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x10, a, b}), 64),
			PublicIP:   netip.AddrFrom4([4]byte{172, 17, a, b}),
			PublicIPv6: netip.AddrFrom16([16]byte{0xfd, 0x17, 15: b, 14: a}),
			VNI:        1, BackendType: "vxlan",
			VTEPMAC: fmt.Sprintf("02:00:00:00:%02x:%02x", a, b), VTEPMACv6: fmt.Sprintf("02:00:00:06:%02x:%02x", a, b),
		})
	}
	return out
}

func self() overlay.Self {
	return overlay.Self{
		Lease: api.Lease{
			Subnet: netip.MustParsePrefix("10.200.0.0/24"), PublicIP: netip.MustParseAddr("172.17.200.1"), VTEPMAC: "02:00:00:00:ff:01",
			BackendType: "vxlan", VNI: 1,
		},
		Network: netip.MustParsePrefix("10.0.0.0/8"),
		Dev:     "eth0", MTU: 1500, Addr: netip.MustParseAddr("172.17.200.1"),
		Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
	}
}

func BenchmarkPlan(b *testing.B) {
	l := leases(5000)
	for b.Loop() {
		vxlan.Backend{}.Plan(self(), l)
	}
}

func BenchmarkDiffEmpty(b *testing.B) {
	l := leases(5000)
	w := vxlan.Backend{}.Plan(self(), l)
	for b.Loop() {
		netstate.Diff(w, netstate.New())
	}
}

func BenchmarkDiffSame(b *testing.B) {
	l := leases(5000)
	w := vxlan.Backend{}.Plan(self(), l)
	v := vxlan.Backend{}.Plan(self(), l)
	for b.Loop() {
		netstate.Diff(w, v)
	}
}
