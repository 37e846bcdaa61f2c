package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
)

func numbered(i, host int) api.Lease {
	return api.Lease{
		Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20, byte(i), 0}), 24),
		PublicIP: netip.AddrFrom4([4]byte{172, 17, 43, byte(host)}), BackendType: "vxlan", VNI: 1,
		VTEPMAC: "02:00:00:00:01:" + string("0123456789abcdef"[host>>4]) + string("0123456789abcdef"[host&15]),
	}
}

// TestQuickGuardIsPlan: after any changes of leases, with time going by, the members are those of a guard that plans everything each time.
func TestQuickGuardIsPlan(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1000, 0)
		s := facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)}
		s.EdgeCheck = true
		l := &agenttest.Journal{Self: agenttest.Peer("172.17.42.31", "172.16.28.0/24")}
		l.Log.Reset()
		var quick, whole Keeper
		quickSteps := 0
		for step := range 60 {
			var gone, fresh []api.Lease
			for range r.IntN(3) {
				if i := r.IntN(20); slices.IndexFunc(l.Others, func(x api.Lease) bool { return x.Subnet == numbered(i, 0).Subnet }) < 0 &&
					!slices.ContainsFunc(fresh, func(x api.Lease) bool { return x.Subnet == numbered(i, 0).Subnet }) {
					fresh = append(fresh, numbered(i, i+20*r.IntN(5)))
				}
			}
			for _, x := range l.Others {
				if r.IntN(8) == 0 {
					gone = append(gone, x)
				}
			}
			l.Change(gone, fresh)
			now = now.Add(time.Duration(r.IntN(12)) * time.Second)
			due := loop.ByPlan
			if r.IntN(20) == 0 {
				due |= loop.ByTime
			}
			before := l.Lists
			got, err := quick.Follow(now, 7, s, l.Self, l, due)
			if err != nil {
				t.Fatal(err)
			}
			if l.Lists == before {
				quickSteps++
			}
			own := l.Self
			want, err := whole.Plan(now, s, own, append(slices.Clone(l.Others), own))
			if err != nil {
				t.Fatal(err)
			}
			if memberTexts(got) != memberTexts(want) {
				t.Fatalf("seed %d step %d:\nhave %s\nwant %s", seed, step, memberTexts(got), memberTexts(want))
			}
			if !slices.Equal(got.Config.Untracked, want.Config.Untracked) || !slices.Equal(got.Config.Segments, want.Config.Segments) {
				t.Fatalf("seed %d step %d: config %+v, want %+v", seed, step, got.Config, want.Config)
			}
		}
		if quickSteps == 0 {
			t.Errorf("seed %d: every step planned everything", seed)
		}
	}
}
