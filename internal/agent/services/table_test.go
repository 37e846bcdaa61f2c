package services

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
)

// TestOneEndpointCostsOneService: the table is not read again and few elements change.
func TestOneEndpointCostsOneService(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	services := agenttest.Services(100, 3)
	p := newProxyLoop(facts.NFTables, x, table, services...)
	step(t, p)
	if want := p.table.Table(); table.table.String() != want.String() || table.reads != 1 {
		t.Errorf("after the first step, with %d reads, there is\n%s\nwant\n%s", table.reads, table.table, want)
	}
	reads, before := table.reads, table.ops
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: agenttest.Changed(services, 42)}, true }
	w, err := p.Step(t.Context(), loop.ByPlan)
	if err != nil || w.Ops == 0 || w.Ops > 6 {
		t.Errorf("one changed endpoint: %d ops, %v", w.Ops, err)
	}
	if len(w.Repaired) > 0 {
		t.Errorf("a change of the plan is taken for another writer's: %v", w.Repaired)
	}
	if table.reads != reads || table.ops == before {
		t.Errorf("%d reads, %d ops", table.reads-reads, table.ops-before)
	}
	if w, err := p.Step(t.Context(), loop.ByKernel); err != nil || w.Ops != 0 {
		t.Errorf("afterwards %d ops, %v", w.Ops, err)
	}
}

// TestTableHeals: what others did is undone and named; so it is together with a change of the plan.
func TestTableHeals(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	services := agenttest.Services(3, 1)
	p := newProxyLoop(facts.NFTables, x, table, services...)
	step(t, p)
	want := table.table.String()
	table.table = nil
	w, err := p.Step(t.Context(), loop.ByKernel)
	if err != nil || table.table.String() != want || !slices.Contains(w.Repaired, "nftables table inet weft") {
		t.Errorf("after the table was deleted: %v, repaired %v", err, w.Repaired)
	}
	for i := range table.table.Chains {
		if table.table.Chains[i].Name == "services-prerouting" {
			table.table.Chains[i].Rules = nil
		}
	}
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: agenttest.Changed(services, 1)}, true }
	w, err = p.Step(t.Context(), loop.ByKernel|loop.ByPlan)
	if err != nil || !reflect.DeepEqual(w.Repaired, []string{"nftables chain inet weft services-prerouting"}) {
		t.Errorf("repaired %v, %v", w.Repaired, err)
	}
}

// BenchmarkOneEndpoint is the loop's step for one changed endpoint among 10,000 services with 10 each: what is planned and compared, and the
// kernel's transaction.
func BenchmarkOneEndpoint(b *testing.B) {
	netns.Need(b)
	table, err := kernelnft.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	services := agenttest.Services(10_000, 10)
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, nil, services...)
	p.nft = table
	begun := time.Now()
	if _, err := p.Step(b.Context(), loop.ByTime); err != nil {
		b.Fatal(err)
	}
	first := time.Since(begun)
	i := 0
	for b.Loop() {
		b.StopTimer()
		services = agenttest.Changed(services, i%len(services))
		i++
		p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: services}, true }
		b.StartTimer()
		w, err := p.Step(b.Context(), loop.ByPlan)
		if err != nil || w.Ops == 0 || w.Ops > 6 {
			b.Fatal(w, err)
		}
	}
	b.ReportMetric(float64(first.Milliseconds()), "ms/first")
	begun = time.Now()
	if w, err := p.Step(b.Context(), loop.ByKernel); err != nil || w.Ops != 0 {
		b.Fatal(w, err)
	}
	b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms/full-check")
}

// TestClientsAreForgotten checks that an endpoint taken from a service with session affinity takes its clients along, and only then.
func TestClientsAreForgotten(t *testing.T) {
	table := &fakeTable{}
	s := agenttest.Nginx("172.16.1.2:80", "172.16.1.3:80")
	s.AffinitySeconds = 60
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, table, s)
	step := func(services ...api.ServicePort) int {
		t.Helper()
		p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: services}, true }
		before := table.forgets
		if _, err := p.Step(t.Context(), loop.ByPlan); err != nil {
			t.Fatal(err)
		}
		return table.forgets - before
	}
	if n := step(s); n != 0 {
		t.Errorf("first plan: %d looks", n)
	}
	fewer := s
	fewer.Endpoints = s.Endpoints[:1]
	if n := step(fewer); n == 0 {
		t.Error("an endpoint went, its clients are remembered")
	}
	other := agenttest.Nginx("172.16.1.2:80")
	other.Name.Name, other.ClusterIPs = "other", []netip.Addr{netip.MustParseAddr("10.254.1.1")}
	if n := step(fewer, other); n != 0 {
		t.Errorf("a service without affinity: %d looks", n)
	}
}
