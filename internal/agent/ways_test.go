package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

func leaseWith(node, subnet, public, backend string, vni uint32, mac string) api.Lease {
	return api.Lease{
		Node: node, Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(public), BackendType: backend, VNI: vni, VTEPMAC: mac,
	}
}

func planOf(t *testing.T, f facts.Facts, own api.Lease, peers ...api.Lease) string {
	t.Helper()
	all := append([]api.Lease{own}, peers...)
	ways, err := waysOf(f, own, all)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := planNode(f, ways, own, all, nil)
	return host.String()
}

// TestBackendsMixWhileTheyChange: in every order of the hosts' changes both directions have a path that the receiver understands.
func TestBackendsMixWhileTheyChange(t *testing.T) {
	facts := walkthroughFacts(facts.NFTables)
	kinds := map[string]struct {
		backend string
		vni     uint32
	}{"vxlan": {lease.VXLAN, 1}, "vxlan2": {lease.VXLAN, 2}, "host-gw": {lease.HostGW, 0}}
	for from, a := range kinds {
		for to, b := range kinds {
			f := facts
			f.Backend, f.Options.VNI = b.backend, b.vni
			own := leaseWith("kube-node1", "172.16.28.0/24", "172.17.42.31", b.backend, b.vni, "02:00:00:00:00:01")
			old := leaseWith("kube-node2", "172.16.78.0/24", "172.17.42.32", a.backend, a.vni, "02:00:00:00:00:02")
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
	f := walkthroughFacts(facts.NFTables)
	f.Backend = lease.HostGW
	own := leaseWith("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.HostGW, 0, "")
	f.Earlier = map[string]overlay.Options{lease.VXLAN: {VNI: 1, Port: 4789}}
	ways, err := waysOf(f, own, []api.Lease{own}, kind{lease.VXLAN, 1, 4789})
	if err != nil || len(ways) != 2 {
		t.Fatalf("%v, %v", ways, err)
	}
	host, _ := planNode(f, ways, own, []api.Lease{own}, nil)
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
	if _, err := backendOf(lease.WireGuard); err != nil {
		t.Skip("backend wireguard is not built in")
	}
	f := walkthroughFacts(facts.NFTables)
	f.Backend = lease.WireGuard
	own := leaseWith("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.WireGuard, 0, "")
	peer := leaseWith("kube-node2", "172.16.78.0/24", "172.17.42.32", lease.HostGW, 0, "")
	ways, err := waysOf(f, own, []api.Lease{own, peer}, kind{lease.VXLAN, 1, 8472})
	if err != nil || len(ways) != 1 || ways[0].kind.backend != lease.WireGuard {
		t.Errorf("%v, %v", ways, err)
	}
}

func TestRepairedNamesWhatThePlanDidNotChange(t *testing.T) {
	route := func(dst, via string) netstate.Route {
		return netstate.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Dev: "eth0"}
	}
	a, b, b2, foreign := route("10.0.1.0/24", "10.0.0.1"), route("10.0.2.0/24", "10.0.0.2"), route("10.0.2.0/24", "10.0.0.3"), route("10.9.0.0/24", "10.0.0.9")
	before, want := netstate.New(a, b), netstate.New(a, b2)
	ops := netstate.Diff(want, netstate.New(b, foreign))
	got := repaired(ops, want, before)
	slices.Sort(got)
	if len(got) != 2 || got[0] != nameOf(a) || got[1] != nameOf(foreign) {
		t.Errorf("repaired: %v", got)
	}
}

// TestServiceRoute: a host without a default route has one for the services, said as the kernel says it when it is read back.
func TestServiceRoute(t *testing.T) {
	f := walkthroughFacts(facts.NFTables)
	f.Gateway, f.ServiceRange = netip.Addr{}, netip.MustParsePrefix("10.254.0.0/16")
	plan := planOf(t, f, leaseWith("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.VXLAN, 1, "02:00:00:00:00:01"))
	if want := "route 10.254.0.0/16 dev eth0 proto 119 src "; !strings.Contains(plan, want) {
		t.Errorf("no %q in\n%s", want, plan)
	}
}

// TestLingeringKinds: of two kinds with one VNI the later one is kept, always, and one that a change led away from is not.
func TestLingeringKinds(t *testing.T) {
	d := &dataplane{kinds: map[kind]time.Time{}}
	now := time.Unix(1000, 0)
	a, b, c := kind{lease.VXLAN, 1, 8472}, kind{lease.VXLAN, 1, 4789}, kind{lease.HostGW, 0, 0}
	for i, k := range []kind{a, b, c} {
		d.remember(now.Add(time.Duration(i)*time.Second), []way{{kind: k}})
	}
	for range 20 {
		if keep := d.remember(now.Add(3*time.Second), []way{{kind: c}}); !slices.Equal(keep, []kind{b, a}) {
			t.Fatalf("kept: %v", keep)
		}
	}
	d.told.setting.Other = &facts.OtherBackend{Backend: lease.VXLAN, Options: overlay.Options{VNI: 1, Port: 4789}}
	s := facts.Setting{Facts: walkthroughFacts(facts.NFTables)}
	s.Backend = lease.HostGW
	d.left(s)
	if keep := d.remember(now.Add(3*time.Second), []way{{kind: c}}); !slices.Equal(keep, []kind{a}) {
		t.Errorf("kept after a change was finished: %v", keep)
	}
}
