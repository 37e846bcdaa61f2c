package agent

import (
	"log/slog"
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
	pods, err := attachments.Open(filepath.Join(t.TempDir(), "pods.json"))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{}
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend, f.Node = lease.VXLAN, "kube-node1"
	a.settings.Set(facts.Setting{Facts: f})
	a.data, err = network.Open(network.Options{
		Log: slog.New(slog.DiscardHandler), Settings: &a.settings, Pods: pods, StateDir: t.TempDir(), Leases: &agenttest.Journal{
			Self:   agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.VXLAN, 1, "02:00:00:00:00:01"),
			Others: []api.Lease{agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", lease.VXLAN, 1, "02:00:00:00:00:02")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.data.Step(t.Context(), loop.ByTime); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ command, want string }{
		{"route replace 172.16.78.0/24 via 172.17.42.1 dev eth0", "172.17.0.0/16"},
		{"route add 172.16.78.0/24 via 172.17.42.1 dev eth0 metric 7", "172.16.78.0/24 172.17.0.0/16"},
		{"route del 172.16.78.0/24 metric 7", "172.17.0.0/16"},
		{"route add 172.16.79.0/24 via 172.17.42.1 dev eth0", "172.16.79.0/24 172.17.0.0/16"},
	} {
		ip(x.command)
		all, err := a.hostRoutes()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all {
			if r.Dst.Addr().Is4() && !r.Dst.Addr().IsLoopback() {
				got = append(got, r.Dst.String())
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != x.want {
			t.Errorf("ip %s: %s, want %s", x.command, got, x.want)
		}
	}
}
