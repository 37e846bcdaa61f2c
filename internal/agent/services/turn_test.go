package services

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/relay"
	"weft/internal/xt"
)

// brokenXT is an iptables that refuses what it is told.
type brokenXT struct {
	*kernelxt.Fake
	err error
}

func (b *brokenXT) Apply(ctx context.Context, ops []xt.Op) error {
	if b.err != nil {
		return b.err
	}
	return b.Fake.Apply(ctx, ops)
}

// in puts a loop into another mode and steps.
func in(t *testing.T, p *Loop, mode facts.ProxyMode) error {
	t.Helper()
	p.setting = func() facts.Setting { return facts.Setting{Facts: agenttest.Walkthrough(mode)} }
	_, err := p.Step(t.Context(), loop.ByHost)
	return err
}

// TestModesLeaveNothing goes from every mode to every other and compares with a host that was in no other.
func TestModesLeaveNothing(t *testing.T) {
	all := []facts.ProxyMode{facts.Userspace, facts.NFTables, facts.IPTables, facts.NoProxy}
	for _, from := range all {
		for _, to := range all {
			x, table := &kernelxt.Fake{}, &fakeTable{}
			p := newProxyLoop(from, x, table, agenttest.Nginx("172.16.78.9:80"))
			step(t, p)
			if err := in(t, p, to); err != nil {
				t.Fatal(err)
			}
			freshX, freshTable := &kernelxt.Fake{}, &fakeTable{}
			step(t, newProxyLoop(to, freshX, freshTable, agenttest.Nginx("172.16.78.9:80")))
			got, err := x.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want, err := freshX.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(xt.Diff(want, got))+len(xt.Diff(got, want)) > 0 || table.table.String() != freshTable.table.String() {
				t.Errorf("%s to %s leaves\n%s%s", from, to, got, table.table)
			}
		}
	}
}

// TestRefusedModeKeepsTheOneBefore: as long as the kernel refuses the rules of a new mode services are served by the old one's.
func TestRefusedModeKeepsTheOneBefore(t *testing.T) {
	x, table := &brokenXT{Fake: &kernelxt.Fake{}}, &fakeTable{}
	p := newProxyLoop(facts.NFTables, nil, table, agenttest.Nginx("172.16.78.9:80"))
	p.xt = x
	step(t, p)
	before := table.table.String()
	x.err = errors.New("no such module")
	if err := in(t, p, facts.IPTables); err == nil {
		t.Fatal("a refused mode is in force")
	}
	if got := table.table.String(); got != before {
		t.Errorf("mode iptables was refused, and the table is now\n%s", got)
	}
	x.err = nil
	if err := in(t, p, facts.IPTables); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(table.table.String(), "services-") {
		t.Errorf("left\n%s", table.table)
	}
	refuse := &refusingTable{fakeTable: table, err: errors.New("no memory")}
	p.nft = refuse
	if err := in(t, p, facts.NFTables); err == nil {
		t.Fatal("a refused table is in force")
	}
	if have, _ := x.Read(t.Context()); !strings.Contains(have.String(), "WEFT-SVC-") {
		t.Error("the table was refused, and the rules of iptables are gone")
	}
	refuse.err = nil
	if err := in(t, p, facts.NFTables); err != nil {
		t.Fatal(err)
	}
	if have, _ := x.Read(t.Context()); strings.Contains(have.String(), "WEFT-SVC-") {
		t.Error("the rules of iptables are left")
	}
}

// TestListenersDrain: they stay for who is connected, and go with their service or with time.
func TestListenersDrain(t *testing.T) {
	x, table, s := &kernelxt.Fake{}, &fakeTable{}, agenttest.Nginx("172.16.78.9:80")
	p := newProxyLoop(facts.Userspace, x, table, s)
	p.turn.again = make(chan struct{}, 1)
	step(t, p)
	port := p.relay.Ports()["default/my-nginx-service: TCP"]
	if err := in(t, p, facts.NFTables); err != nil {
		t.Fatal(err)
	}
	if _, d, _ := p.turned(); d != 1 || p.relay.Ports()["default/my-nginx-service: TCP"] != port {
		t.Errorf("after the change %d drain, ports %v", d, p.relay.Ports())
	}
	select {
	case <-p.turn.again:
	case <-time.After(30 * time.Second):
		t.Error("nobody looks at what drains")
	}
	if err := in(t, p, facts.Userspace); err != nil {
		t.Fatal(err)
	}
	if got := p.relay.Ports()["default/my-nginx-service: TCP"]; got != port || p.relay.Draining() != 0 {
		t.Errorf("back: port %d, want %d, %d drain", got, port, p.relay.Draining())
	}
	if err := in(t, p, facts.IPTables); err != nil {
		t.Fatal(err)
	}
	p.turn.until = time.Now().Add(-time.Second)
	step(t, p)
	if len(p.relay.Ports()) > 0 {
		t.Errorf("after the limit: %v", p.relay.Ports())
	}
}

// TestModeNoneServesNothing: no rule of a service, its masquerading all the same.
func TestModeNoneServesNothing(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	s := agenttest.Nginx("172.16.78.9:80")
	s.ClusterIPs = []netip.Addr{netip.MustParseAddr("10.254.9.9")}
	p := newProxyLoop(facts.NoProxy, x, table, s)
	step(t, p)
	text := table.table.String()
	if strings.Contains(text, "10.254.9.9") || strings.Contains(text, "services-") || !strings.Contains(text, "masquerade") {
		t.Errorf("mode none:\n%s", text)
	}
	p = newProxyLoop(facts.NoProxy, x, &fakeTable{}, s)
	p.noTables = errors.New("none here")
	step(t, p)
	have, err := x.Read(t.Context())
	if err != nil || !strings.Contains(have.String(), "MASQUERADE") || strings.Contains(have.String(), "10.254.9.9") {
		t.Errorf("mode none without nf_tables: %v\n%s", err, have)
	}
}

func TestUnknownModes(t *testing.T) {
	for mode, want := range map[string]string{
		"ebpf": "--proxy-mode=ebpf: this version has no such mode", "ipvs": "weft has no such mode", "x": "--proxy-mode=x: want iptables or nftables or none or userspace",
	} {
		if err := rules.CheckMode(mode); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// refusingTable is a kernel that refuses transactions.
type refusingTable struct {
	*fakeTable
	err error
}

func (f *refusingTable) Apply(ops []nft.Op) error {
	if f.err != nil {
		return f.err
	}
	return f.fakeTable.Apply(ops)
}

// countingTable notes the transactions.
type countingTable struct {
	*fakeTable
	all [][]nft.Op
}

func (f *countingTable) Apply(ops []nft.Op) error {
	f.all = append(f.all, ops)
	return f.fakeTable.Apply(ops)
}

// TestElementsGoAfterTheirRules: a packet on its way through the old rules finds what they look up, and one more endpoint is still one
// transaction.
func TestElementsGoAfterTheirRules(t *testing.T) {
	table := &countingTable{fakeTable: &fakeTable{}}
	s := agenttest.Nginx("172.16.78.9:80", "172.16.78.10:80")
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, nil, s)
	p.nft = table
	step(t, p)
	f := agenttest.Walkthrough(facts.IPTables)
	f.EdgeCheck = false
	p.setting = func() facts.Setting { return facts.Setting{Facts: f} }
	table.all = nil
	step(t, p)
	if len(table.all) != 2 {
		t.Fatalf("%d transactions, want 2", len(table.all))
	}
	for _, op := range table.all[0] {
		if op.Verb == nft.Del && (op.Kind == nft.KindElements || op.Kind == nft.KindSet) {
			t.Errorf("in the first transaction: %s", op)
		}
	}
	p.setting = func() facts.Setting { return facts.Setting{Facts: agenttest.Walkthrough(facts.NFTables)} }
	step(t, p)
	table.all = nil
	p.cluster = func() (api.Snapshot, bool) {
		return api.Snapshot{Services: []api.ServicePort{agenttest.Nginx("172.16.78.9:80")}}, true
	}
	if _, err := p.Step(t.Context(), loop.ByPlan); err != nil || len(table.all) != 1 {
		t.Errorf("%d transactions for an endpoint that goes, %v", len(table.all), err)
	}
}

// partTable refuses one object of each transaction and does the rest.
type partTable struct{ *fakeTable }

func (f partTable) Apply(ops []nft.Op) error {
	return errors.Join(f.fakeTable.Apply(ops), &kernelnft.Refused{Op: ops[0], Err: errors.New("not this one")})
}

// TestOneRefusedObjectHoldsNothingUp: the mode is in force, the rules of the one before are gone, and the object is named.
func TestOneRefusedObjectHoldsNothingUp(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	p := newProxyLoop(facts.IPTables, x, table, agenttest.Nginx("172.16.78.9:80"))
	step(t, p)
	p.nft = partTable{table}
	if err := in(t, p, facts.NFTables); err == nil || !strings.Contains(err.Error(), "not this one") {
		t.Errorf("the refused object is not named: %v", err)
	}
	have, err := x.Read(t.Context())
	if mode, _, _ := p.turned(); err != nil || mode != facts.NFTables || strings.Contains(have.String(), "WEFT-SVC-") {
		t.Errorf("mode %s, %v, rules\n%s", mode, err, have)
	}
	if err := in(t, p, facts.IPTables); err == nil || strings.Contains(table.table.String(), "services-") {
		t.Errorf("%v, left\n%s", err, table.table)
	}
}

// TestThroughRules: what is served on loopback in every mode is not left of mode userspace.
func TestThroughRules(t *testing.T) {
	s := agenttest.Nginx("172.16.78.9:80")
	s.NodePort = 30080
	own := proxy.Localhost(proxy.Node{LocalhostNodePorts: true, Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.31")}}, s)
	if len(own) == 0 {
		t.Fatal("no listener on loopback")
	}
	all := []relay.Connection{{Service: own[0].Service}, {Service: "default/my-nginx-service:"}, {Service: "default/my-nginx-service:/local"}}
	if n := throughRules(all); n != 2 {
		t.Errorf("%d of %d came by rules", n, len(all))
	}
}

// TestCheckComesWithItsMembers: where the edge check is turned on while the services' rules go, it is never in force without those whose packets
// it lets pass.
func TestCheckComesWithItsMembers(t *testing.T) {
	table := &countingTable{fakeTable: &fakeTable{}}
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, nil, agenttest.Nginx("172.16.78.9:80"))
	p.nft = table
	p.leases = fakeLeases{
		own:  agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", "vxlan", 1, ""),
		peer: agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", "vxlan", 1, ""),
	}
	f := agenttest.Walkthrough(facts.NFTables)
	f.EdgeCheck = false
	p.setting = func() facts.Setting { return facts.Setting{Facts: f} }
	step(t, p)
	table.all = nil
	on := agenttest.Walkthrough(facts.IPTables)
	p.setting = func() facts.Setting { return facts.Setting{Facts: on} }
	if _, err := p.Step(t.Context(), loop.ByPlan); err != nil {
		t.Fatal(err)
	}
	if len(table.all) != 2 {
		t.Fatalf("%d transactions, want 2", len(table.all))
	}
	first := false
	for i, ops := range table.all {
		for _, op := range ops {
			switch {
			case i == 0 && op.Kind == nft.KindElements && op.Verb == nft.Add && strings.HasPrefix(op.Set.Name, "edge-1-"):
				first = true
			case i == 0 && op.Kind == nft.KindRules && !first:
				t.Errorf("before the members: %s", op)
			case i == 1 && op.Verb != nft.Del:
				t.Errorf("in the second transaction: %s", op)
			}
		}
	}
	if !first {
		t.Errorf("the first transaction has no members: %v", table.all[0])
	}
}

// TestMarkedPacketsLeaveMasqueraded: a packet that the rules of a mode marked on its way in may meet those of the next one on its way out.
func TestMarkedPacketsLeaveMasqueraded(t *testing.T) {
	x := &kernelxt.Fake{}
	p := newProxyLoop(facts.NFTables, x, &fakeTable{}, agenttest.Nginx("172.16.78.9:80"))
	for _, mode := range []facts.ProxyMode{facts.Userspace, facts.IPTables, facts.Userspace} {
		if err := in(t, p, mode); err != nil {
			t.Fatal(err)
		}
		have, err := x.Read(t.Context())
		if err != nil || !strings.Contains(have.String(), "-A WEFT-MASQUERADE -j MASQUERADE") {
			t.Errorf("mode %s: %v, nobody masquerades what is marked in\n%s", mode, err, have)
		}
	}
}
