package ways

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

func planOf(t *testing.T, f facts.Facts, own api.Lease, peers ...api.Lease) string {
	t.Helper()
	all := append([]api.Lease{own}, peers...)
	ways, err := Of(f, own, all)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := PlanNode(f, ways, own, all, nil)
	return host.String()
}

// TestBackendsMixWhileTheyChange: in every order of the hosts' changes both directions have a path that the receiver understands.
func TestBackendsMixWhileTheyChange(t *testing.T) {
	facts := agenttest.Walkthrough(facts.NFTables)
	kinds := map[string]struct {
		backend string
		vni     uint32
	}{"vxlan": {lease.VXLAN, 1}, "vxlan2": {lease.VXLAN, 2}, "host-gw": {lease.HostGW, 0}}
	for from, a := range kinds {
		for to, b := range kinds {
			f := facts
			f.Backend, f.Options.VNI = b.backend, b.vni
			own := agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", b.backend, b.vni, "02:00:00:00:00:01")
			old := agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", a.backend, a.vni, "02:00:00:00:00:02")
			if a.backend == lease.HostGW {
				old.VTEPMAC = ""
			}
			if b.backend == lease.HostGW {
				own.VTEPMAC = ""
			}
			// This host has changed to b, the other one has not: it is sent to as it announces.
			plan := planOf(t, f, own, old)
			want := map[string]string{
				"vxlan": "172.16.78.0/24 via 172.16.78.0 dev flannel.1", "vxlan2": "172.16.78.0/24 via 172.16.78.0 dev flannel.2",
				"host-gw": "172.16.78.0/24 via 172.17.42.32 dev eth0",
			}[from]
			if !strings.Contains(plan, want) {
				t.Errorf("%s to %s: no path to a peer that has not changed, want %s:\n%s", from, to, want, plan)
			}
			// And it can receive by what it announces.
			if device := map[string]string{"vxlan": "flannel.1", "vxlan2": "flannel.2"}[to]; !strings.Contains(plan, device) {
				t.Errorf("%s to %s: nothing receives at %s:\n%s", from, to, device, plan)
			}
		}
	}
}

func TestOldWayStaysForAWhile(t *testing.T) {
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend = lease.HostGW
	own := agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.HostGW, 0, "")
	f.Earlier = map[string]overlay.Options{lease.VXLAN: {VNI: 1, Port: 4789}}
	ways, err := Of(f, own, []api.Lease{own}, Kind{Type: lease.VXLAN, VNI: 1, Port: 4789})
	if err != nil || len(ways) != 2 {
		t.Fatalf("%v, %v", ways, err)
	}
	host, _ := PlanNode(f, ways, own, []api.Lease{own}, nil)
	o, ok := host.Get(netstate.ID{Kind: netstate.KindLink, Key: "flannel.1"})
	if l, is := o.(netstate.Link); !ok || !is || l.VXLAN.Port != 4789 {
		t.Errorf("the device that still receives: %v", o)
	}
	if mtu := podMTU(ways); mtu != 1450 {
		t.Errorf("pods' MTU is %d while packets still go by VXLAN", mtu)
	}
}

// TestEncryptedNetworkMixesWithNothing: a host that is to encrypt has no clear path, whatever others announce.
func TestEncryptedNetworkMixesWithNothing(t *testing.T) {
	if _, err := Backend(lease.WireGuard); err != nil {
		t.Skip("backend wireguard is not built in")
	}
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend = lease.WireGuard
	own := agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.WireGuard, 0, "")
	peer := agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", lease.HostGW, 0, "")
	ways, err := Of(f, own, []api.Lease{own, peer}, Kind{Type: lease.VXLAN, VNI: 1, Port: 8472})
	if err != nil || len(ways) != 1 || ways[0].Kind.Type != lease.WireGuard {
		t.Errorf("%v, %v", ways, err)
	}
}

// TestServiceRoute: a host without a default route has one for the services, said as the kernel says it when it is read back.
func TestServiceRoute(t *testing.T) {
	f := agenttest.Walkthrough(facts.NFTables)
	f.Gateway, f.ServiceRange = netip.Addr{}, netip.MustParsePrefix("10.254.0.0/16")
	plan := planOf(t, f, agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.VXLAN, 1, "02:00:00:00:00:01"))
	if want := "route 10.254.0.0/16 dev eth0 proto 119 src "; !strings.Contains(plan, want) {
		t.Errorf("no %q in\n%s", want, plan)
	}
}

// TestNarrowPathsInThePlan: the route to the narrow peer has an MTU, the others and the pods do not change.
func TestNarrowPathsInThePlan(t *testing.T) {
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24"), BackendType: lease.VXLAN, VNI: 1, VTEPMAC: "02:00:00:00:00:01"}
	narrow, wide := netip.MustParseAddr("172.17.42.32"), netip.MustParseAddr("172.17.42.33")
	all := []api.Lease{own}
	for i, a := range []netip.Addr{narrow, wide} {
		all = append(all, api.Lease{
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(78 + i), 0}), 24), PublicIP: a, BackendType: lease.VXLAN, VNI: 1,
			VTEPMAC: "02:00:00:00:00:1" + string(rune('0'+i)),
		})
	}
	f := facts.Facts{
		Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{netip.MustParseAddr("172.17.42.31")}, Backend: lease.VXLAN, Attach: "routed",
		PathMTU: map[netip.Addr]int{narrow: 1400},
	}
	used, err := Of(f, own, all)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := PlanNode(f, used, own, all, nil)
	for dst, want := range map[string]int{"172.16.78.0/24": 1350, "172.16.79.0/24": 0} {
		for _, r := range netstate.Of[netstate.Route](host) {
			if r.Dst.String() == dst && r.MTU != want {
				t.Errorf("%s, want MTU %d", r, want)
			}
		}
	}
	if m := podMTU(used); m != 1450 {
		t.Errorf("pods' MTU %d", m)
	}
	f.Backend = lease.L2
	if s := f.Self(own); s.MTU != 1400 {
		t.Errorf("l2: MTU %d", s.MTU)
	}
}
