package services

import (
	"context"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/filter"
	"weft/internal/agent/loop"
	"weft/internal/api"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/nft"
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
		w, err := p.Step(t.Context(), loop.ByPlan)
		if err != nil || w.Ops == 0 || w.Ops > 20 {
			t.Fatalf("one changed endpoint: %d ops, %v", w.Ops, err)
		}
	}
	if x.reads != reads {
		t.Errorf("rules were read %d times for changes of the plan", x.reads-reads)
	}
	if w, err := p.Step(t.Context(), loop.ByIPTables); err != nil || w.Ops != 0 || x.reads == reads {
		t.Errorf("a full check: %d ops, %d reads, %v", w.Ops, x.reads-reads, err)
	}
	now := agenttest.Changed(services, 3)
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: now}, true }
	if w, err := p.Step(t.Context(), loop.ByPlan); err != nil || w.Ops == 0 {
		t.Errorf("one more change: %d ops, %v", w.Ops, err)
	}
	if err := x.Fake.Apply(t.Context(), []xt.Op{{Table: "nat", Chain: "WEFT-SERVICES", Verb: xt.Flush}}); err != nil {
		t.Fatal(err)
	}
	if w, err := p.Step(t.Context(), loop.ByIPTables); err != nil || len(w.Repaired) != 1 {
		t.Errorf("after somebody flushed a chain: repaired %v, %v", w.Repaired, err)
	}
}

// restore puts rules of others into the fake.
func restore(t *testing.T, f *kernelxt.Fake, save string) {
	t.Helper()
	tables, err := xt.Parse(save)
	if err != nil {
		t.Fatal(err)
	}
	var ops []xt.Op
	for _, table := range tables {
		for _, c := range table.Chains {
			ops = append(ops, xt.Op{Table: table.Name, Chain: c.Name, Verb: xt.NewChain})
			for _, r := range c.Rules {
				ops = append(ops, xt.Op{Table: table.Name, Chain: c.Name, Verb: xt.Append, Rule: r})
			}
		}
	}
	if err := f.Apply(context.Background(), ops); err != nil {
		t.Fatal(err)
	}
}

// TestForwardingWhereIPTablesIsInUse: in mode nftables rules are made in both variants of iptables, but only where somebody uses them.
func TestForwardingWhereIPTablesIsInUse(t *testing.T) {
	const accept = "-A WEFT-FORWARD -s 172.16.0.0/12 -j ACCEPT\n"
	x, other := &kernelxt.Fake{}, &kernelxt.Fake{}
	p := newProxyLoop(facts.NFTables, x, &fakeTable{})
	p.other = filter.Filter{K: other, Name: "iptables-legacy"}
	step(t, p)
	for _, f := range []*kernelxt.Fake{x, other} {
		if len(f.Ops) > 0 {
			t.Fatalf("nobody uses iptables, and it was changed: %v", f.Ops)
		}
		restore(t, f, "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n")
	}
	step(t, p)
	for _, f := range []*kernelxt.Fake{x, other} {
		have, _ := f.Read(context.Background())
		if text := have.V4.String(); !strings.Contains(text, accept) || !strings.Contains(text, "-A FORWARD -j DOCKER-USER\n-A FORWARD -m comment") {
			t.Errorf("no rule of ours after those of others:\n%s", text)
		}
		if len(have.V6) > 0 {
			t.Errorf("ip6tables, which nobody uses:\n%s", have.V6)
		}
	}
	w, err := p.Step(context.Background(), loop.ByIPTables)
	if err != nil || w.Ops > 0 {
		t.Errorf("a second look applied %d ops: %v", w.Ops, err)
	}
	flush := xt.Op{Table: "filter", Chain: "FORWARD", Verb: xt.Flush}
	if err := other.Apply(context.Background(), []xt.Op{flush}); err != nil {
		t.Fatal(err)
	}
	w, err = p.Step(context.Background(), loop.ByIPTables)
	if err != nil || len(w.Repaired) == 0 {
		t.Errorf("a flushed chain: repaired %v, %v", w.Repaired, err)
	}
}

func TestWarnings(t *testing.T) {
	chain := func(family nft.Family, table, name string, drop bool) kernelnft.BaseChain {
		return kernelnft.BaseChain{Family: family, Table: table, Chain: nft.Chain{Name: name, Base: nft.Base{Type: nft.Filter, Hook: nft.Forward, Drop: drop}}}
	}
	x := &kernelxt.Fake{}
	restore(t, x, "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -j DROP\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n")
	table, err := nft.ParseTable("table inet firewalld {\nchain ends {\ntype filter hook forward priority 10; policy accept;\n" +
		"ct state established accept\ncounter reject with icmpx type admin-prohibited\n}\n" +
		"chain passes {\ntype filter hook forward priority 10; policy accept;\nct state invalid drop\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	p := newProxyLoop(facts.NFTables, x, &fakeTable{})
	step(t, p)
	p.nft = &fakeTable{table: &table}
	p.chains = func(nft.Hook) ([]kernelnft.BaseChain, error) {
		return []kernelnft.BaseChain{
			chain(nft.INet, "weft", "forward", true), chain(nft.IPv4, "filter", "FORWARD", true), chain(nft.INet, "filter", "forward", true),
			chain(nft.INet, "firewalld", "ends", false), chain(nft.INet, "firewalld", "passes", false),
		}, nil
	}
	got := strings.Join(p.warnings(), "\n")
	for _, want := range []string{
		"iptables: -A FORWARD -j REJECT --reject-with icmp-host-prohibited stands before", "table inet filter, chain forward, at",
		"table inet firewalld, chain ends, at",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n+1, got)
	}
}
