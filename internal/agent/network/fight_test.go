package network

import (
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/lease"
	"weft/internal/netstate"
)

// TestPlansDoNotWaitForFights: a route that somebody fights for waits when it was deleted once more, but not when its lease went and came back.
func TestPlansDoNotWaitForFights(t *testing.T) {
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
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend, f.Node = lease.VXLAN, "kube-node1"
	var s facts.InForce
	s.Set(facts.Setting{Facts: f})
	peer := agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", lease.VXLAN, 1, "02:00:00:00:00:02")
	leases := &agenttest.Journal{
		Self:   agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.VXLAN, 1, "02:00:00:00:00:01"),
		Others: []api.Lease{peer},
	}
	pods, err := attachments.Open(filepath.Join(t.TempDir(), "pods.json"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDataplane(slog.New(slog.DiscardHandler), &s, leases, nil, pods)
	if err != nil {
		t.Fatal(err)
	}
	defer d.handle.Close()
	d.healing = &loop.Healing{}
	route := netstate.Route{Dst: netip.MustParsePrefix("172.16.78.0/24")}
	step := func(what string, want bool) {
		t.Helper()
		if _, err := d.Step(t.Context(), loop.ByTime); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		have, err := d.handle.Read(t.Context(), d.want)
		if err != nil {
			t.Fatal(err)
		}
		if _, there := have.Get(netstate.IDOf(route)); there != want {
			t.Errorf("%s: the route is there: %t", what, there)
		}
	}
	step("at first", true)
	for range 2 * loop.FightLimit { // the next repair waits ten seconds now
		d.mender.fights.Repaired(time.Now(), []string{nameOf(route)}, nil)
	}
	leases.Change([]api.Lease{peer}, nil)
	step("lease gone", false)
	leases.Change(nil, []api.Lease{peer})
	step("lease back", true)
	ip("route del 172.16.78.0/24")
	step("deleted in a fight", false)
}
