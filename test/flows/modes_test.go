package flows_test

import (
	"context"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/explain"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/iptables"
	"weft/internal/proxy/nftables"
	"weft/internal/xt"
)

// ruleset is rules as explain asks them.
type ruleset func(local func(netip.Addr) bool) explain.Rules

// plan is what a scene of the table is planned from.
type plan struct {
	node          proxy.Node
	services      []api.ServicePort
	masqueradeAll bool
}

// mode is a proxy mode: it makes a plan real in the node's network namespace, and answers the rules as planned and as the kernel has them.
// The empty plan takes everything away. A new mode is one more of these, and what it can't do is said in the table.
type mode struct {
	name  string
	apply func(t *testing.T, p *plan) (planned, kernel ruleset)
}

var modes = []mode{{"iptables", applyIPTables}, {"nftables", applyNFTables}}

func applyIPTables(t *testing.T, p *plan) (planned, kernel ruleset) {
	t.Helper()
	var want xt.Ruleset
	if p != nil {
		want = iptables.Planner{MasqueradeAll: p.masqueradeAll}.All(p.node, p.services)
	}
	var k kernelxt.Kernel
	have, err := k.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(context.Background(), xt.Diff(want, have)); err != nil {
		t.Fatal(err)
	}
	if have, err = k.Read(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left := xt.Diff(want, have); len(left) > 0 {
		t.Fatalf("kernel and plan differ: %v", left)
	}
	of := func(r xt.Ruleset) ruleset {
		return func(local func(netip.Addr) bool) explain.Rules {
			return explain.IPTables{Rules: r, Local: local}
		}
	}
	return of(want), of(have)
}

func applyNFTables(t *testing.T, p *plan) (planned, kernel ruleset) {
	t.Helper()
	conn, err := kernelnft.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p == nil {
		if err := conn.Apply([]nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}}); err != nil {
			t.Fatal(err)
		}
		return nil, nil
	}
	planner := nftables.Planner{MasqueradeAll: p.masqueradeAll}
	parts := map[string]nft.Table{"": planner.Base(p.node)}
	for _, s := range p.services {
		parts[s.Name.String()+string(s.Protocol)] = planner.Plan(p.node, s)
	}
	want := nft.Union(parts)
	read := func() *nft.Table {
		have, err := conn.Read(nft.INet, nft.TableName)
		if err != nil {
			t.Fatal(err)
		}
		return have
	}
	if err := conn.Apply(nft.Diff(want, read())); err != nil {
		t.Fatal(err)
	}
	have := read()
	if left := nft.Diff(want, have); len(left) > 0 {
		t.Fatalf("kernel and plan differ: %v", left)
	}
	of := func(table nft.Table) ruleset {
		return func(local func(netip.Addr) bool) explain.Rules {
			return explain.NFTables{Table: table, Local: local}
		}
	}
	return of(want), of(*have)
}
