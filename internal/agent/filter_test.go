package agent

import (
	"context"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/xt"
)

// countingXT counts reads.
type countingXT struct {
	*kernelxt.Fake
	reads int
}

func (c *countingXT) Read(ctx context.Context) (xt.Ruleset, error) {
	c.reads++
	return c.Fake.Read(ctx)
}

// TestPartialSync: a changed endpoint in mode iptables costs the chains it changes; the rules are not read for it, and are what a full
// plan makes. When somebody else changed rules they are read.
func TestPartialSync(t *testing.T) {
	x := &countingXT{Fake: &kernelxt.Fake{}}
	services := agenttest.Services(50, 3)
	p := newProxyLoop(facts.IPTables, x.Fake, &fakeTable{}, services...)
	p.xt = x
	step(t, p)
	reads := x.reads
	for i := range 10 {
		services = agenttest.Changed(services, i*4)
		now := services
		p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: now}, true }
		w, err := p.step(t.Context(), loop.ByPlan)
		if err != nil || w.Ops == 0 || w.Ops > 20 {
			t.Fatalf("one changed endpoint: %d ops, %v", w.Ops, err)
		}
	}
	if x.reads != reads {
		t.Errorf("rules were read %d times for changes of the plan", x.reads-reads)
	}
	if w, err := p.step(t.Context(), loop.ByIPTables); err != nil || w.Ops != 0 || x.reads == reads {
		t.Errorf("a full check: %d ops, %d reads, %v", w.Ops, x.reads-reads, err)
	}
	now := agenttest.Changed(services, 3)
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: now}, true }
	if w, err := p.step(t.Context(), loop.ByPlan); err != nil || w.Ops == 0 {
		t.Errorf("one more change: %d ops, %v", w.Ops, err)
	}
	if err := x.Fake.Apply(t.Context(), []xt.Op{{Table: "nat", Chain: "WEFT-SERVICES", Verb: xt.Flush}}); err != nil {
		t.Fatal(err)
	}
	if w, err := p.step(t.Context(), loop.ByIPTables); err != nil || len(w.Repaired) != 1 {
		t.Errorf("after somebody flushed a chain: repaired %v, %v", w.Repaired, err)
	}
}
