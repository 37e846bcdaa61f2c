package overlay_test

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/hostgw"
	"weft/internal/overlay/l2"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares the text with testdata/name, as the commands that make the state from nothing. No command makes a tunnel: those are as weft state
// prints them.
func golden(t *testing.T, name string, s netstate.State) {
	t.Helper()
	var b strings.Builder
	for _, op := range netstate.Diff(s, netstate.New()) {
		for _, c := range op.Commands() {
			b.WriteString(c + "\n")
		}
	}
	b.WriteString(s.Select(func(o netstate.Object) bool { return o.Kind() == netstate.KindTunnel }).String())
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("%s (-golden +plan):\n%s", name, d)
	}
}

// walkthrough is kube-node1 and its peers: node2, another one behind a gateway, one of another backend and one of another VNI.
func walkthrough(dual bool) (overlay.Self, []api.Lease) {
	self := overlay.Self{
		Lease: api.Lease{
			Node: "kube-node1", Subnet: netip.MustParsePrefix("172.16.28.0/24"), PublicIP: netip.MustParseAddr("172.17.42.31"),
			BackendType: "vxlan", VNI: 1, VTEPMAC: "b2:69:2c:67:63:b8",
		},
		Network: netip.MustParsePrefix("172.16.0.0/12"), Dev: "eth0", MTU: 1500, Addr: netip.MustParseAddr("172.17.42.31"),
		Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd17::/64")},
	}
	var leases []api.Lease
	for i, l := range []struct{ subnet, public, kind string }{
		{"172.16.78.0/24", "172.17.42.32", "vxlan"},
		{"172.16.79.0/24", "192.0.2.9", "vxlan"},
		{"172.16.80.0/24", "172.17.42.33", "host-gw"},
		{"172.16.81.0/24", "172.17.42.34", "vxlan"},
		{"172.16.82.0/24", "0.0.0.0", "vxlan"},
	} {
		l := api.Lease{
			Node: fmt.Sprintf("peer%d", i), Subnet: netip.MustParsePrefix(l.subnet), PublicIP: netip.MustParseAddr(l.public),
			BackendType: l.kind, VNI: 1, VTEPMAC: fmt.Sprintf("02:00:00:00:04:%02x", i),
		}
		if i == 3 {
			l.VNI = 7
		}
		if dual {
			l.SubnetV6 = netip.MustParsePrefix(fmt.Sprintf("fd10:0:0:%d::/64", i))
			l.PublicIPv6 = netip.MustParseAddr([]string{"fd17::32", "2001:db8::9", "fd17::33", "fd17::34", "fd17::35"}[i])
			l.VTEPMACv6 = fmt.Sprintf("02:00:00:00:06:%02x", i)
		}
		leases = append(leases, l)
	}
	if dual {
		self.Lease.SubnetV6 = netip.MustParsePrefix("fd10:0:0:ff::/64")
		self.Lease.PublicIPv6, self.AddrV6 = netip.MustParseAddr("fd17::31"), netip.MustParseAddr("fd17::31")
		self.Lease.VTEPMACv6 = "b2:69:2c:67:63:b9"
	}
	return self, append(leases, self.Lease)
}

func TestPlanGoldens(t *testing.T) {
	self, leases := walkthrough(false)
	golden(t, "vxlan.txt", vxlan.Backend{}.Plan(self, leases))
	self.MTU = 9000
	self.Options = overlay.Options{DirectRouting: true, Port: 4789, VNI: 1, GBP: true, Learning: true, MTU: 9000}
	golden(t, "vxlan-options.txt", vxlan.Backend{}.Plan(self, leases))

	self, leases = walkthrough(true)
	golden(t, "vxlan-dual.txt", vxlan.Backend{}.Plan(self, leases))
	golden(t, "hostgw-dual.txt", hostgw.Backend{}.Plan(self, leases))
	self.Lease.Subnet = netip.Prefix{}
	golden(t, "vxlan-v6.txt", vxlan.Backend{}.Plan(self, leases))
}

func TestL2Golden(t *testing.T) {
	self, leases := walkthrough(false)
	for i := range leases {
		leases[i].BackendType = l2.Name
	}
	self.Lease.BackendType = l2.Name
	golden(t, "l2.txt", l2.Backend{Bridge: "docker0", Endpoints: []l2.Endpoint{
		{IP: netip.MustParseAddr("172.16.78.9"), MAC: "02:42:ac:10:4e:09", Node: "peer0"},
		{IP: netip.MustParseAddr("172.16.28.5"), MAC: "02:42:ac:10:1c:05", Node: "kube-node1"},
		{IP: netip.MustParseAddr("172.16.81.9"), MAC: "02:42:ac:10:51:09", Node: "peer3"}, // another VNI
		{IP: netip.MustParseAddr("172.16.99.9"), MAC: "02:42:ac:10:63:09", Node: "nobody"},
	}}.Plan(self, leases))
}

// TestTunnelGoldens has the backends whose packets a program of this host may carry: the tunnels are what that, or the kernel's WireGuard, is told.
func TestTunnelGoldens(t *testing.T) {
	few := func(dual bool) (overlay.Self, []api.Lease) {
		self, leases := walkthrough(dual)
		return self, slices.Delete(leases, 2, len(leases)-1)
	}
	self, leases := few(false)
	for i := range leases {
		leases[i].BackendType, leases[i].VNI, leases[i].VTEPMAC = "", 0, ""
	}
	golden(t, "udp.txt", udp.Backend{}.Plan(self, leases))
	for _, dual := range []bool{false, true} {
		self, leases = few(dual)
		for i := range leases {
			key := bytes.Repeat([]byte{byte(i + 1)}, 32)
			leases[i].BackendType, leases[i].WGKey = wireguard.Name, base64.StdEncoding.EncodeToString(key)
			leases[i].WGPort, leases[i].WGPortV6 = wireguard.Ports(self.Options)
		}
		self.Lease = leases[len(leases)-1]
		if dual {
			self.NetworkV6 = netip.MustParsePrefix("fd10::/48")
		}
		name := map[bool]string{false: "wireguard.txt", true: "wireguard-dual.txt"}[dual]
		golden(t, name, wireguard.Backend{}.Plan(self, leases))
	}
}

// TestPlanIsUnion checks that a plan is the union of its parts, by which one lease can be planned alone.
func TestPlanIsUnion(t *testing.T) {
	type parts interface {
		overlay.Backend
		Base(overlay.Self) netstate.State
		Peer(overlay.Self, api.Lease) netstate.State
	}
	self, leases := walkthrough(true)
	for _, b := range []parts{vxlan.Backend{}, hostgw.Backend{}} {
		union := b.Base(self)
		peers, _ := overlay.Peers(self, leases)
		for _, l := range peers {
			union = netstate.Union(union, b.Peer(self, l))
		}
		if plan := b.Plan(self, leases); !netstate.Equal(union, plan) {
			t.Errorf("%s: union\n%s\nplan\n%s", b.Name(), union, plan)
		}
	}
}

func TestMTU(t *testing.T) {
	self, _ := walkthrough(false)
	dual, _ := walkthrough(true)
	for _, c := range []struct {
		b    overlay.Backend
		self overlay.Self
		want int
	}{
		{vxlan.Backend{}, self, 1450}, {vxlan.Backend{}, dual, 1430}, {hostgw.Backend{}, self, 1500},
	} {
		if got := overlay.MTU(c.b, c.self); got != c.want {
			t.Errorf("%s: MTU %d, want %d", c.b.Name(), got, c.want)
		}
	}
}
