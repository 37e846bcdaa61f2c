package rules

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/lease/claim"
)

// BenchmarkGuardLease is what one more lease costs the plan of the edge check in a network of 5,000, and the memory all of them take.
func BenchmarkGuardLease(b *testing.B) {
	var leases []api.Lease
	for i := range 5000 {
		leases = append(leases, api.Lease{
			Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
			PublicIP: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), BackendType: "vxlan", VNI: 1,
		})
	}
	f := agenttest.Walkthrough(facts.NFTables)
	f.Network, f.EdgeCheck = netip.MustParsePrefix("10.0.0.0/8"), true
	s := facts.Setting{Facts: f}
	store := &agenttest.Journal{Self: agenttest.Peer("172.17.42.31", "10.250.0.0/24"), Others: leases}
	store.Log.Reset()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var g guard.Keeper
	var t TablePlan
	step := func() int {
		p, err := g.Follow(time.Unix(1000, 0), 1, s, store.Self, store, loop.ByPlan)
		if err != nil {
			b.Fatal(err)
		}
		return len(t.Update(ContentOf(f, store.Self, api.Snapshot{}, p)))
	}
	step()
	runtime.GC()
	runtime.ReadMemStats(&after)
	next := 0
	for b.Loop() {
		next++
		l := leases[0]
		l.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + byte(next>>8)%100, byte(next), 0}), 24)
		l.PublicIP = netip.AddrFrom4([4]byte{198, 19, byte(next >> 8), byte(next)})
		store.Log.Add(claim.Delta{Fresh: []api.Lease{l}})
		if n := step(); n == 0 {
			b.Fatal("a lease more changed nothing")
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-held")
	runtime.KeepAlive(&g)
}
