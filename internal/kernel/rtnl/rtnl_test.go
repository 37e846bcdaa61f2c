package rtnl_test

import (
	"fmt"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/overlay"
	"weft/internal/overlay/vxlan"
)

func leases(n int) []api.Lease {
	out := make([]api.Lease, 0, n)
	for i := range n {
		out = append(out, api.Lease{
			Node: fmt.Sprintf("node%d", i), Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			PublicIP:    netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)}),
			BackendType: "vxlan", VNI: 1, VTEPMAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255),
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

func TestApplyThenRead(t *testing.T) {
	w := underlay(t, netip.MustParsePrefix("172.17.200.1/16"))[0]
	want := vxlan.Backend{}.Plan(self(), leases(10))
	if n := w.converge(want); n != want.Len() {
		t.Errorf("%d ops from empty, want %d", n, want.Len())
	}
	w.settled(want)
	w.restart()
	w.settled(want)
	if n := w.converge(want); n != 0 {
		t.Errorf("%d ops after a restart, want 0", n)
	}
}
