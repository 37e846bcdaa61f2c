package services

import (
	"math/rand/v2"
	"slices"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/flows"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	"weft/internal/kernel/conntrack"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/nft"
)

// inPlace is a reader's list of services that is changed in place, as the watch's feed: only Changes tell what is different.
type inPlace struct {
	services []api.ServicePort
	version  uint64
}

func (l *inPlace) change(c ...api.ServicePort) api.Snapshot {
	for _, s := range c {
		i := slices.IndexFunc(l.services, func(x api.ServicePort) bool { return x.Name == s.Name })
		l.services[i] = s
	}
	l.version++
	return api.Snapshot{Services: l.services, Changes: &api.ServiceChanges{From: l.version - 1, To: l.version, Fresh: c}}
}

// TestChangesAreProgrammed changes services in place. Steps that fail before they plan miss a version; nothing is lost.
func TestChangesAreProgrammed(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	table := &fakeTable{}
	list := &inPlace{services: agenttest.Services(20, 3)}
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, table)
	p.flows = flows.New(p.log, noFlows{})
	snap := api.Snapshot{Services: list.services, Changes: &api.ServiceChanges{To: 1, Fresh: slices.Clone(list.services)}}
	list.version = 1
	p.cluster = func() (api.Snapshot, bool) { return snap, true }
	step(t, p)
	for round := range 100 {
		i := r.IntN(20)
		snap = list.change(agenttest.Changed(list.services, i)[i])
		if r.IntN(4) == 0 {
			continue // the step that would have seen it did not come so far
		}
		if _, err := p.Step(t.Context(), loop.ByPlan); err != nil {
			t.Fatal(err)
		}
		own, _ := p.leases.Own()
		want := rules.PlanTable(rules.ContentOf(p.setting().Facts, own, api.Snapshot{Services: list.services}, p.table.Guard))
		if ops := nft.Diff(*want, table.table); len(ops) > 0 {
			t.Fatalf("round %d: %d objects differ, the first: %s", round, len(ops), ops[0])
		}
	}
}

// noFlows is connection tracking that tracks nothing.
type noFlows struct{}

func (noFlows) Walks(conntrack.Query) int                      { return 0 }
func (noFlows) List(conntrack.Query) ([]conntrack.Flow, error) { return nil, nil }
func (noFlows) Delete([]conntrack.Flow) (int, error)           { return 0, nil }
