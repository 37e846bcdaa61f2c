package flows_test

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/explain"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/iptables"
	"weft/internal/proxy/nftables"
	"weft/internal/proxy/userspace"
	"weft/internal/relay"
	"weft/internal/xt"
)

// ruleset is rules as explain asks them, and the relay's listeners.
type ruleset struct {
	rules     func(local func(netip.Addr) bool) explain.Rules
	listeners []netstate.Listener
}

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

var modes = []mode{{"iptables", applyIPTables}, {"nftables", applyNFTables}, {"userspace", applyUserspace}}

// engine is the relay of the node: of all services in mode userspace, of NodePorts on loopback in the others.
var engine = relay.New(relay.Options{Log: slog.New(slog.DiscardHandler)})

// listen makes the relay's listeners those of the plan, nil: none, and returns them as planned and as they are.
func listen(t *testing.T, planned []netstate.Listener) (plan, real []netstate.Listener) {
	t.Helper()
	if _, err := engine.Apply(planned); err != nil {
		t.Fatal(err)
	}
	real = netstate.Of[netstate.Listener](engine.State())
	want := netstate.New()
	for _, l := range planned {
		want.Add(l)
	}
	if !netstate.Equal(want, engine.State()) {
		t.Fatalf("the relay's listeners\n%s\nand the plan\n%s\ndiffer", engine.State(), want)
	}
	return planned, real
}

// firstPort of the relay's listeners in mode userspace.
const firstPort = 61000

func applyUserspace(t *testing.T, p *plan) (planned, kernel ruleset) {
	t.Helper()
	if p == nil {
		listen(t, nil)
		return applyXT(t, xt.Ruleset{})
	}
	ports := userspace.Ports{}
	for i, l := range userspace.AllListeners(p.node, p.services, nil) {
		ports[l.Key()] = uint16(firstPort + i)
	}
	plan, real := listen(t, userspace.AllListeners(p.node, p.services, ports))
	planned, kernel = applyXT(t, userspace.AllRules(p.node, p.services, ports))
	planned.listeners, kernel.listeners = plan, real
	return planned, kernel
}

// localhost opens the listeners of NodePorts on loopback and adds them to the rulesets.
func localhost(t *testing.T, p *plan, planned, kernel ruleset) (ruleset, ruleset) {
	t.Helper()
	planned.listeners, kernel.listeners = listen(t, proxy.AllLocalhost(p.node, p.services))
	return planned, kernel
}

func applyIPTables(t *testing.T, p *plan) (planned, kernel ruleset) {
	t.Helper()
	if p == nil {
		listen(t, nil)
		return applyXT(t, xt.Ruleset{})
	}
	planned, kernel = applyXT(t, iptables.Planner{MasqueradeAll: p.masqueradeAll}.All(p.node, p.services))
	return localhost(t, p, planned, kernel)
}

// applyXT makes the rules of iptables those of the plan, and returns them as planned and as they are.
func applyXT(t *testing.T, want xt.Ruleset) (planned, kernel ruleset) {
	t.Helper()
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
		return ruleset{rules: func(local func(netip.Addr) bool) explain.Rules {
			return explain.IPTables{Rules: r, Local: local}
		}}
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
		listen(t, nil)
		if err := conn.Apply([]nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}}); err != nil {
			t.Fatal(err)
		}
		return planned, kernel
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
		return ruleset{rules: func(local func(netip.Addr) bool) explain.Rules {
			return explain.NFTables{Table: table, Local: local}
		}}
	}
	return localhost(t, p, of(want), of(*have))
}
