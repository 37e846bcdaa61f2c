package agent

import (
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/network"
	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/lease"
)

// dual is a lease of both families.
func dual(node, subnet, subnetV6, public, publicV6, mac string) api.Lease {
	l := agenttest.Lease(node, subnet, public, lease.VXLAN, 1, mac)
	l.SubnetV6, l.PublicIPv6, l.VTEPMACv6 = netip.MustParsePrefix(subnetV6), netip.MustParseAddr(publicV6), mac
	return l
}

// TestHostRoutesLeaveOutInjuries: a route that somebody put in the place of ours is none of the host's, which would have the peer's lease
// refused; one beside ours, or in a place where nothing of ours belongs, is.
func TestHostRoutesLeaveOutInjuries(t *testing.T) {
	netns.Need(t)
	ip := func(command string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", command, err, out)
		}
	}
	ip("link add eth0 type veth peer name hub")
	t.Cleanup(func() { ip("link del eth0") })
	ip("link set hub up")
	ip("link set eth0 up")
	ip("addr add 172.17.42.31/16 dev eth0")
	ip("addr add fd17::31/64 dev eth0 nodad")
	pods, err := attachments.Open(filepath.Join(t.TempDir(), "pods.json"))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{}
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend, f.Node, f.NetworkV6 = lease.VXLAN, "kube-node1", netip.MustParsePrefix("fd16::/48")
	f.Addrs, f.Connected = append(f.Addrs, netip.MustParseAddr("fd17::31")), append(f.Connected, netip.MustParsePrefix("fd17::/64"))
	a.settings.Set(facts.Setting{Facts: f})
	a.data, err = network.Open(network.Options{
		Log: slog.New(slog.DiscardHandler), Settings: &a.settings, Pods: pods, StateDir: t.TempDir(), Leases: &agenttest.Journal{
			Self:   dual("kube-node1", "172.16.28.0/24", "fd16:0:0:28::/64", "172.17.42.31", "fd17::31", "02:00:00:00:00:01"),
			Others: []api.Lease{dual("kube-node2", "172.16.78.0/24", "fd16:0:0:78::/64", "172.17.42.32", "fd17::32", "02:00:00:00:00:02")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.data.Step(t.Context(), loop.ByTime); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ command, want string }{
		{"-6 route replace fd16:0:0:78::/64 via fd17::1 dev eth0", "172.17.0.0/16 fd17::/64"},
		{"-6 route add fd16:0:0:78::/64 via fd17::1 dev eth0 metric 7", "172.17.0.0/16 fd16:0:0:78::/64 fd17::/64"},
		{"-6 route del fd16:0:0:78::/64 metric 7", "172.17.0.0/16 fd17::/64"},
		{"route replace 172.16.78.0/24 via 172.17.42.1 dev eth0", "172.17.0.0/16 fd17::/64"},
		{"route add 172.16.78.0/24 via 172.17.42.1 dev eth0 metric 7", "172.16.78.0/24 172.17.0.0/16 fd17::/64"},
		{"route del 172.16.78.0/24 metric 7", "172.17.0.0/16 fd17::/64"},
		{"route add 172.16.79.0/24 via 172.17.42.1 dev eth0", "172.16.79.0/24 172.17.0.0/16 fd17::/64"},
	} {
		ip(x.command)
		all, err := a.hostRoutes()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all {
			if !r.Dst.Addr().IsLoopback() {
				got = append(got, r.Dst.String())
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != x.want {
			t.Errorf("ip %s: %s, want %s", x.command, got, x.want)
		}
	}
}
