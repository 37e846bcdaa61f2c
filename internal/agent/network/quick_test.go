package network

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
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
	"weft/internal/lease/claim"
	"weft/internal/netstate"
	"weft/internal/store"
)

// loggedLeases is a store of leases that tells what changed.
type loggedLeases struct {
	own   api.Lease
	peers []api.Lease
	log   store.Journal
}

func (l *loggedLeases) Own() (api.Lease, bool)   { return l.own, true }
func (l *loggedLeases) Leases() []api.Lease      { return append([]api.Lease{l.own}, l.peers...) }
func (l *loggedLeases) Changed() <-chan struct{} { return nil }
func (l *loggedLeases) Delta(since uint64) (uint64, claim.Delta, bool) {
	return l.log.Since(since)
}

// TestQuickIsWhole changes leases at random and holds what changes one by one made of plan and kernel against the whole plan.
func TestQuickIsWhole(t *testing.T) {
	netns.Need(t)
	for _, line := range []string{"ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up", "ip addr add 172.17.42.31/16 dev eth0"} {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", line, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "eth0").Run() })
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend, f.Node = lease.VXLAN, "kube-node1"
	var s facts.InForce
	s.Set(facts.Setting{Facts: f})
	own := agenttest.Lease("kube-node1", "172.16.0.0/24", "172.17.42.31", lease.VXLAN, 1, "02:00:00:00:00:01")
	leases := &loggedLeases{own: own}
	leases.log.Reset()
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
	step := func(due loop.Cause) {
		t.Helper()
		if _, err := d.Step(context.Background(), due); err != nil {
			t.Fatal(err)
		}
	}
	step(loop.ByTime)
	rnd := rand.New(rand.NewPCG(1, 2))
	quick := 0
	for i := range 300 {
		leases.change(rnd)
		if rnd.IntN(3) == 0 {
			continue
		}
		if _, done := d.quick(context.Background(), loop.ByPlan); done {
			quick++
		} else {
			step(loop.ByTime)
		}
		want, _, _, err := d.plan(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !netstate.Equal(want, d.want) {
			t.Fatalf("change %d: want\n%s\nhave\n%s", i, want, d.want)
		}
		if left, err := d.Diff(context.Background()); err != nil || len(left) > 0 {
			t.Fatalf("change %d: left to do %q %v", i, left, err)
		}
	}
	if quick < 50 {
		t.Errorf("only %d of the steps were quick", quick)
	}
}

// change adds, changes or takes one lease; now and then one that has the MAC or the address of another.
func (l *loggedLeases) change(rnd *rand.Rand) {
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(1 + rnd.IntN(20)), 0}), 24)
	at := slices.IndexFunc(l.peers, func(p api.Lease) bool { return p.Subnet == subnet })
	var d claim.Delta
	if at >= 0 {
		d.Gone = []api.Lease{l.peers[at]}
		l.peers = slices.Delete(slices.Clone(l.peers), at, at+1)
	}
	if at < 0 || rnd.IntN(2) == 0 {
		n := int(subnet.Addr().As4()[2])
		mac, public := fmt.Sprintf("02:00:00:00:%02x:%02x", rnd.IntN(3), n), fmt.Sprintf("172.17.%d.%d", rnd.IntN(3), n)
		switch rnd.IntN(200) {
		case 0:
			mac = "02:00:00:00:00:03"
		case 1:
			public = "172.17.42.31"
		case 2:
			subnet = netip.PrefixFrom(subnet.Addr(), 25)
		}
		fresh := agenttest.Lease("", subnet.String(), public, lease.VXLAN, 1, mac)
		d.Fresh = []api.Lease{fresh}
		l.peers = append(l.peers, fresh)
	}
	l.log.Add(d)
}
