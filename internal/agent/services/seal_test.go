package services

import (
	"context"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/lease"
	"weft/internal/nft"
)

// TestGuardInEveryMode: the part that does not depend on how services are programmed is the same.
func TestGuardInEveryMode(t *testing.T) {
	for _, mode := range []facts.ProxyMode{facts.Userspace, facts.IPTables, facts.NFTables} {
		table := &fakeTable{}
		p := newProxyLoop(mode, &kernelxt.Fake{}, table)
		p.leases = fakeLeases{own: p.leases.(fakeLeases).own, peer: agenttest.Peer("172.17.42.32", "172.16.78.0/24")}
		step(t, p)
		for _, chain := range []string{"overlay-prerouting", "overlay-output", "edge-port-8472", "edge-inner"} {
			if table.table.Chain(chain) == nil {
				t.Errorf("mode %s: no chain %s", mode, chain)
			}
		}
		if s := table.table.Set("edge-1-4in4-24"); s == nil || len(s.Elements) != 1 {
			t.Errorf("mode %s: members %v", mode, s)
		}
		f := p.setting().Facts
		f.EdgeCheck = false
		p.setting = func() facts.Setting { return facts.Setting{Facts: f} }
		step(t, p)
		if table.table.Chain("edge-port-8472") != nil || table.table.Chain("overlay-output") == nil {
			t.Errorf("mode %s: --edge-check=false leaves\n%s", mode, table.table)
		}
	}
}

// TestNoTables: on a kernel without nf_tables outer packets are not tracked either.
func TestNoTables(t *testing.T) {
	x := &kernelxt.Fake{}
	p := newProxyLoop(facts.IPTables, x, nil)
	p.nft, p.noTables = nil, context.Canceled
	step(t, p)
	have, err := x.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if text := have.String(); !strings.Contains(text, "-A WEFT-NOTRACK -p udp -m udp --sport 32768:65535 --dport 8472 -m addrtype --dst-type LOCAL -j CT --notrack") {
		t.Errorf("rules\n%s", text)
	}
	f := p.setting().Facts
	f.Backend = lease.WireGuard
	if err := p.Seal(f); err == nil {
		t.Error("an encrypted network is planned though nothing keeps it from leaving in clear")
	}
}

// TestSealedBeforeTheClusterIsKnown: the seal is added to what an agent before left, whose services are not touched.
func TestSealedBeforeTheClusterIsKnown(t *testing.T) {
	table := &fakeTable{}
	step(t, newProxyLoop(facts.NFTables, &kernelxt.Fake{}, table, agenttest.Nginx("172.16.78.9:80")))
	before, reads := *table.table, table.reads
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, table)
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{}, false }
	f := p.setting().Facts
	f.Backend = lease.WireGuard
	for range 2 {
		if err := p.Seal(f); err != nil {
			t.Fatal(err)
		}
	}
	if n := table.reads - reads; n != 1 { // the second time it is in force
		t.Errorf("%d reads", n)
	}
	if table.table.Chain("seal-postrouting") == nil {
		t.Fatal("no seal")
	}
	for _, c := range before.Chains {
		if now := table.table.Chain(c.Name); now == nil || !nft.SameRules(now.Rules, c.Rules) {
			t.Errorf("chain %s changed", c.Name)
		}
	}
	if len(table.table.Sets) != len(before.Sets) {
		t.Error("sets changed")
	}
}
