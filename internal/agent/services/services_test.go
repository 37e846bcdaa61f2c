package services

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/netstate"
	"weft/internal/nft"
)

// fakeLeases is a store that holds what it is given.
type fakeLeases struct{ own, peer api.Lease }

func (f fakeLeases) Own() (api.Lease, bool)   { return f.own, f.own.Subnet.IsValid() }
func (f fakeLeases) Leases() []api.Lease      { return []api.Lease{f.own, f.peer} }
func (f fakeLeases) Changed() <-chan struct{} { return nil }

// fakeRelay opens what it is asked to, on the port it is asked for.
type fakeRelay struct {
	ports    map[string]uint16
	draining int
}

func (f *fakeRelay) Apply(want []netstate.Listener) (map[string]uint16, error) {
	before := f.ports
	f.ports = map[string]uint16{}
	f.draining = 0
	for _, l := range want {
		if l.Drain {
			if before[l.Key()] == 0 {
				continue
			}
			f.draining++
			l.Addr = netip.AddrPortFrom(l.Addr.Addr(), before[l.Key()])
		}
		f.ports[l.Key()] = l.Addr.Port()
	}
	return f.ports, nil
}
func (f *fakeRelay) Draining() int            { return f.draining }
func (f *fakeRelay) Ports() map[string]uint16 { return f.ports }

// fakeTable is one table in memory.
type fakeTable struct {
	table      *nft.Table
	reads, ops int
	forgets    int
}

func (f *fakeTable) Outline(nft.Family, string) (*nft.Table, error) {
	f.reads++
	return f.table, nil
}

func (f *fakeTable) Compare(want *nft.Table) ([]nft.Op, error) {
	f.reads++
	want.Sort()
	return nft.Diff(*want, f.table), nil
}

func (f *fakeTable) Apply(ops []nft.Op) error {
	f.ops += len(ops)
	t := nft.Apply(f.table, ops...)
	f.table = t
	return nil
}

func (f *fakeTable) Forget(nft.Family, string, nft.Set, func(nft.Element) bool) (int, error) {
	f.forgets++
	return 0, nil
}

// newProxyLoop is a loop over fakes with one service.
func newProxyLoop(mode facts.ProxyMode, x *kernelxt.Fake, table *fakeTable, services ...api.ServicePort) *Loop {
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24"), PublicIP: netip.MustParseAddr("172.17.42.31")}
	return &Loop{
		log: slog.New(slog.DiscardHandler), setting: func() facts.Setting { return facts.Setting{Facts: agenttest.Walkthrough(mode)} }, leases: fakeLeases{own: own},
		cluster: func() (api.Snapshot, bool) { return api.Snapshot{Services: services}, true },
		xt:      x, relay: &fakeRelay{}, nft: table, ready: make(chan struct{}),
	}
}

func step(t *testing.T, p *Loop) {
	t.Helper()
	if _, err := p.Step(context.Background(), loop.ByTime); err != nil {
		t.Fatal(err)
	}
}

func TestUserspaceRulesLeadToTheListener(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	p := newProxyLoop(facts.Userspace, x, table, agenttest.Nginx("172.16.78.9:80"))
	step(t, p)
	have, err := x.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	port := p.relay.Ports()["default/my-nginx-service: TCP"]
	if port < rules.FirstPort {
		t.Fatalf("the listener holds port %d", port)
	}
	want := "--dport 8080 -j REDIRECT --to-ports " + strconv.Itoa(int(port))
	if !strings.Contains(have.String(), want) {
		t.Fatalf("rules\n%s\nhave no %q", have, want)
	}
	for _, c := range table.table.Chains {
		if !strings.HasPrefix(c.Name, "edge-") && !strings.HasPrefix(c.Name, "overlay-") {
			t.Errorf("mode userspace made chain %s in table inet weft", c.Name)
		}
	}
	if p.steps.FirstOps == 0 {
		t.Error("the first step of an empty host counted no ops")
	}
}

func TestASecondAgentAppliesNothing(t *testing.T) {
	for _, mode := range []facts.ProxyMode{facts.Userspace, facts.NFTables} {
		x, table := &kernelxt.Fake{}, &fakeTable{}
		step(t, newProxyLoop(mode, x, table, agenttest.Nginx("172.16.78.9:80")))
		before := table.ops
		again := newProxyLoop(mode, x, table, agenttest.Nginx("172.16.78.9:80"))
		step(t, again)
		if again.steps.FirstOps != 0 || table.ops != before {
			t.Errorf("mode %s: a restarted agent applied %d ops", mode, again.steps.FirstOps)
		}
	}
}

func TestModeSwitchLeavesNothing(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	step(t, newProxyLoop(facts.Userspace, x, table, agenttest.Nginx("172.16.78.9:80")))
	step(t, newProxyLoop(facts.NFTables, x, table, agenttest.Nginx("172.16.78.9:80")))
	have, err := x.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if left := have.Ours().String(); left != "" {
		t.Errorf("mode userspace left\n%s", left)
	}
	if table.table == nil || table.table.Chain("pods-postrouting") == nil {
		t.Fatal("mode nftables made no table")
	}
	step(t, newProxyLoop(facts.Userspace, x, table, agenttest.Nginx("172.16.78.9:80")))
	want := &fakeTable{}
	step(t, newProxyLoop(facts.Userspace, &kernelxt.Fake{}, want))
	if table.table.String() != want.table.String() {
		t.Errorf("mode nftables left\n%s", table.table)
	}
}

// TestNothingIsRemovedBeforeTheClusterIsKnown: an agent whose API is away must not take an empty list for the truth.
func TestNothingIsRemovedBeforeTheClusterIsKnown(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	step(t, newProxyLoop(facts.NFTables, x, table, agenttest.Nginx("172.16.78.9:80")))
	p := newProxyLoop(facts.NFTables, x, table)
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{}, false }
	before := table.ops
	step(t, p)
	if table.ops != before {
		t.Fatal("rules were changed while the cluster was not known")
	}
	select {
	case <-p.ready:
		t.Fatal("ready before the cluster is known")
	default:
	}
}
