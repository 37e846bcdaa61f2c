package guard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/overlay/edge"
)

func planned(t *testing.T, g *Keeper, now time.Time, s facts.Setting, own api.Lease, leases ...api.Lease) Guard {
	t.Helper()
	out, err := g.Plan(now, s, own, append(leases, own))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func memberTexts(g Guard) string {
	var out []string
	for m := range g.Members.All() {
		out = append(out, m.Outer.String()+" "+m.Subnet.String())
	}
	return strings.Join(out, ", ")
}

// TestOldAddressesLinger: a peer's packets from its old address are taken for as long as it may still send from there.
func TestOldAddressesLinger(t *testing.T) {
	var g Keeper
	now := time.Unix(1000, 0)
	s := facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)}
	own := agenttest.Peer("172.17.42.31", "172.16.28.0/24")
	own.VTEPMAC = "02:00:00:00:00:01"
	old, fresh := agenttest.Peer("172.17.42.32", "172.16.78.0/24"), agenttest.Peer("172.17.42.99", "172.16.78.0/24")
	const both = "172.17.42.32 172.16.78.0/24, 172.17.42.99 172.16.78.0/24"
	steps := []struct {
		after time.Duration
		peers []api.Lease
		want  string
	}{
		{0, []api.Lease{old}, "172.17.42.32 172.16.78.0/24"},
		{0, []api.Lease{fresh}, both},
		{ways.Linger - 1, []api.Lease{fresh}, both},
		{1, []api.Lease{fresh}, "172.17.42.99 172.16.78.0/24"},
		{0, nil, "172.17.42.99 172.16.78.0/24"},
		{ways.Linger, nil, ""},
	}
	for i, x := range steps {
		now = now.Add(x.after)
		if got := memberTexts(planned(t, &g, now, s, own, x.peers...)); got != x.want {
			t.Errorf("step %d: %q, want %q", i, got, x.want)
		}
	}
}

// TestOldNetworkLingers: packets of a network that was in force before are taken, and not tracked, for as long.
func TestOldNetworkLingers(t *testing.T) {
	var g Keeper
	now := time.Unix(1000, 0)
	s := facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)}
	own := agenttest.Peer("172.17.42.31", "172.16.28.0/24")
	planned(t, &g, now, s, own)
	s.Backend = lease.WireGuard
	c := planned(t, &g, now, s, own).Config
	if !slices.Equal(c.Untracked, []uint16{8472, 51820, 51821}) || !slices.Equal(c.Segments, []edge.Segment{{Port: 8472, VNI: 1}}) {
		t.Errorf("at once: %v %v", c.Untracked, c.Segments)
	}
	if len(c.Seal.Networks) == 0 {
		t.Error("not sealed at once")
	}
	c = planned(t, &g, now.Add(ways.Linger), s, own).Config
	if !slices.Equal(c.Untracked, []uint16{51820, 51821}) || len(c.Segments) != 0 {
		t.Errorf("later: %v %v", c.Untracked, c.Segments)
	}
}
