package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/ways"
	"weft/internal/api"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/lease"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

func peerLease(outer, subnet string) api.Lease {
	return api.Lease{
		Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(outer), BackendType: "vxlan", VNI: 1, VTEPMAC: "02:00:00:00:00:02",
	}
}

func planned(t *testing.T, g *guards, now time.Time, s facts.Setting, own api.Lease, leases ...api.Lease) guard {
	t.Helper()
	out, err := g.plan(now, s, own, append(leases, own))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func memberTexts(g guard) string {
	var out []string
	for m := range g.members.all() {
		out = append(out, m.Outer.String()+" "+m.Subnet.String())
	}
	return strings.Join(out, ", ")
}

// TestOldAddressesLinger: a peer's packets from its old address are taken for as long as it may still send from there.
func TestOldAddressesLinger(t *testing.T) {
	var g guards
	now := time.Unix(1000, 0)
	s := facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)}
	own := peerLease("172.17.42.31", "172.16.28.0/24")
	own.VTEPMAC = "02:00:00:00:00:01"
	old, fresh := peerLease("172.17.42.32", "172.16.78.0/24"), peerLease("172.17.42.99", "172.16.78.0/24")
	const both = "172.17.42.32 172.16.78.0/24, 172.17.42.99 172.16.78.0/24"
	steps := []struct {
		after time.Duration
		peers []api.Lease
		want  string
	}{
		{0, []api.Lease{old}, "172.17.42.32 172.16.78.0/24"},
		{0, []api.Lease{fresh}, both},
		{ways.Linger - 1, []api.Lease{fresh}, both},
		{1, []api.Lease{fresh}, "172.17.42.99 172.16.78.0/24"},
		{0, nil, "172.17.42.99 172.16.78.0/24"},
		{ways.Linger, nil, ""},
	}
	for i, x := range steps {
		now = now.Add(x.after)
		if got := memberTexts(planned(t, &g, now, s, own, x.peers...)); got != x.want {
			t.Errorf("step %d: %q, want %q", i, got, x.want)
		}
	}
}

// TestOldNetworkLingers: packets of a network that was in force before are taken, and not tracked, for as long.
func TestOldNetworkLingers(t *testing.T) {
	var g guards
	now := time.Unix(1000, 0)
	s := facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)}
	own := peerLease("172.17.42.31", "172.16.28.0/24")
	planned(t, &g, now, s, own)
	s.Backend = lease.WireGuard
	c := planned(t, &g, now, s, own).config
	if !slices.Equal(c.Untracked, []uint16{8472, 51820, 51821}) || !slices.Equal(c.Segments, []edge.Segment{{Port: 8472, VNI: 1}}) {
		t.Errorf("at once: %v %v", c.Untracked, c.Segments)
	}
	if len(c.Seal.Networks) == 0 {
		t.Error("not sealed at once")
	}
	c = planned(t, &g, now.Add(ways.Linger), s, own).config
	if !slices.Equal(c.Untracked, []uint16{51820, 51821}) || len(c.Segments) != 0 {
		t.Errorf("later: %v %v", c.Untracked, c.Segments)
	}
}

// TestGuardInEveryMode: the part that does not depend on how services are programmed is the same.
func TestGuardInEveryMode(t *testing.T) {
	for _, mode := range []facts.ProxyMode{facts.Userspace, facts.IPTables, facts.NFTables} {
		table := &fakeTable{}
		p := newProxyLoop(mode, &kernelxt.Fake{}, table)
		p.leases = fakeLeases{own: p.leases.(fakeLeases).own, peer: peerLease("172.17.42.32", "172.16.78.0/24")}
		step(t, p)
		for _, chain := range []string{"overlay-prerouting", "overlay-output", "edge-input", "edge-vni-1"} {
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
		if table.table.Chain("edge-input") != nil || table.table.Chain("overlay-output") == nil {
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
	if text := have.String(); !strings.Contains(text, "-A WEFT-NOTRACK -p udp -m udp --dport 8472 -j CT --notrack") {
		t.Errorf("rules\n%s", text)
	}
	f := p.setting().Facts
	f.Backend = lease.WireGuard
	if err := p.seal(f); err == nil {
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
		if err := p.seal(f); err != nil {
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

// TestExplainAsksAllRules: in the iptables modes the guard is in nf_tables, the rest in iptables.
func TestExplainAsksAllRules(t *testing.T) {
	own := peerLease("172.17.42.31", "172.16.28.0/24")
	for mode, want := range map[facts.ProxyMode]int{facts.Userspace: 2, facts.IPTables: 2, facts.NFTables: 1} {
		f := agenttest.Walkthrough(mode)
		used, err := ways.Of(f, own, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := planRules(f, own, api.Snapshot{}, planGuard(f, used, own, nil))
		if got := len(r.explainers(nil)); got != want {
			t.Errorf("mode %s: %d rulesets, want %d", mode, got, want)
		}
	}
}
