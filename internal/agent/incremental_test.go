package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/nft"
)

// manyServices are n services with m endpoints each, as a snapshot holds them: each with memory of its own.
func manyServices(n, m int) []api.ServicePort {
	out := make([]api.ServicePort, n)
	for i := range out {
		out[i] = api.ServicePort{
			Name: api.ServicePortName{Namespace: "default", Name: fmt.Sprintf("s%05d", i)}, Protocol: api.TCP, Port: 80,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)})},
		}
		for j := range m {
			a := netip.AddrFrom4([4]byte{172, 16, byte(i), byte(j + 1)})
			out[i].Endpoints = append(out[i].Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(a, 8080), Ready: true, Serving: true})
		}
	}
	return out
}

// changed is a copy of the services in which one has other endpoints, as the next snapshot of a watch: the rest shares its memory.
func changed(services []api.ServicePort, i int) []api.ServicePort {
	next := slices.Clone(services)
	e := slices.Clone(next[i].Endpoints)
	e[0].Addr = netip.AddrPortFrom(e[0].Addr.Addr(), e[0].Addr.Port()+1)
	next[i].Endpoints = e
	return next
}

// TestIncrementalPlanIsTheWholePlan changes services at random: the table that the ops of each change lead to is the one planned anew.
func TestIncrementalPlanIsTheWholePlan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	f := agenttest.Walkthrough(facts.NFTables)
	var plan tablePlan
	var kernel *nft.Table
	pool := manyServices(30, 3)
	for round := range 200 {
		var services []api.ServicePort
		for i, s := range pool {
			if r.IntN(4) > 0 {
				services = append(services, s)
			}
			if r.IntN(10) == 0 {
				pool = changed(pool, i)
			}
		}
		if round%50 == 49 {
			f.Addrs = append([]netip.Addr{netip.AddrFrom4([4]byte{172, 17, 42, byte(round)})}, f.Addrs...)
			f.Options.Port = uint16(8000 + round)
		}
		snap := api.Snapshot{Services: services}
		var leases []api.Lease
		for i := range 40 {
			if r.IntN(3) > 0 {
				leases = append(leases, randomPeer(r, i))
			}
		}
		used, err := ways.Of(f, own, leases)
		if err != nil {
			t.Fatal(err)
		}
		g := guard.Plan(f, used, own, leases)
		kernel = nft.Apply(kernel, plan.update(contentOf(f, own, snap, g))...)
		want := planRules(f, own, snap, g).Table
		if ops := nft.Diff(*want, kernel); len(ops) > 0 {
			t.Fatalf("round %d: %d objects differ, the first: %s", round, len(ops), ops[0])
		}
		if got := plan.table().String(); got != want.String() {
			t.Fatalf("round %d: the plan is\n%s\nwant\n%s", round, got, want)
		}
	}
}

// randomPeer is a lease of one of a few hosts, with subnets of some lengths.
func randomPeer(r *rand.Rand, i int) api.Lease {
	l := api.Lease{
		Subnet:      netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20, byte(i), 0}), 24+r.IntN(3)),
		PublicIP:    netip.AddrFrom4([4]byte{172, 17, 1, byte(i + r.IntN(2)*100)}),
		BackendType: []string{"vxlan", "vxlan", "host-gw"}[r.IntN(3)],
	}
	if r.IntN(5) == 0 {
		l.BackendType, l.VNI = "vxlan", 7
	}
	return l
}

// TestSameServiceKnowsEveryField: a field that sameService forgets would never be programmed when it changes.
func TestSameServiceKnowsEveryField(t *testing.T) {
	base := manyServices(1, 2)[0]
	same := base
	same.Endpoints = slices.Clone(base.Endpoints)
	if !sameService(&base, &same) {
		t.Error("equal services differ")
	}
	typ := reflect.TypeFor[api.ServicePort]()
	for i := range typ.NumField() {
		other := base
		v := reflect.ValueOf(&other).Elem().Field(i)
		switch v.Kind() {
		case reflect.Slice:
			v.Set(reflect.Append(reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, 9), v), reflect.Zero(v.Type().Elem())))
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int:
			v.SetInt(v.Int() + 1)
		case reflect.Uint16:
			v.SetUint(v.Uint() + 1)
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Struct:
			v.Field(0).SetString("other")
		default:
			t.Fatalf("field %s of kind %s: teach this test", typ.Field(i).Name, v.Kind())
		}
		if sameService(&base, &other) {
			t.Errorf("a change of %s is not seen", typ.Field(i).Name)
		}
	}
}

// TestOneEndpointCostsOneService: the table is not read again and few elements change.
func TestOneEndpointCostsOneService(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	services := manyServices(100, 3)
	p := newProxyLoop(facts.NFTables, x, table, services...)
	step(t, p)
	reads, before := table.reads, table.ops
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: changed(services, 42)}, true }
	w, err := p.step(t.Context(), loop.ByPlan)
	if err != nil || w.Ops == 0 || w.Ops > 6 {
		t.Errorf("one changed endpoint: %d ops, %v", w.Ops, err)
	}
	if len(w.Repaired) > 0 {
		t.Errorf("a change of the plan is taken for another writer's: %v", w.Repaired)
	}
	if table.reads != reads || table.ops == before {
		t.Errorf("%d reads, %d ops", table.reads-reads, table.ops-before)
	}
	if w, err := p.step(t.Context(), loop.ByKernel); err != nil || w.Ops != 0 {
		t.Errorf("afterwards %d ops, %v", w.Ops, err)
	}
}

// TestTableHeals: what others did is undone and named; so it is together with a change of the plan.
func TestTableHeals(t *testing.T) {
	x, table := &kernelxt.Fake{}, &fakeTable{}
	services := manyServices(3, 1)
	p := newProxyLoop(facts.NFTables, x, table, services...)
	step(t, p)
	want := table.table.String()
	table.table = nil
	w, err := p.step(t.Context(), loop.ByKernel)
	if err != nil || table.table.String() != want || !slices.Contains(w.Repaired, "nftables table inet weft") {
		t.Errorf("after the table was deleted: %v, repaired %v", err, w.Repaired)
	}
	for i := range table.table.Chains {
		if table.table.Chains[i].Name == "services-prerouting" {
			table.table.Chains[i].Rules = nil
		}
	}
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: changed(services, 1)}, true }
	w, err = p.step(t.Context(), loop.ByKernel|loop.ByPlan)
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
	services := manyServices(10_000, 10)
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, nil, services...)
	p.nft = table
	begun := time.Now()
	if _, err := p.step(b.Context(), loop.ByTime); err != nil {
		b.Fatal(err)
	}
	first := time.Since(begun)
	i := 0
	for b.Loop() {
		b.StopTimer()
		services = changed(services, i%len(services))
		i++
		p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: services}, true }
		b.StartTimer()
		w, err := p.step(b.Context(), loop.ByPlan)
		if err != nil || w.Ops == 0 || w.Ops > 6 {
			b.Fatal(w, err)
		}
	}
	b.ReportMetric(float64(first.Milliseconds()), "ms/first")
	begun = time.Now()
	if w, err := p.step(b.Context(), loop.ByKernel); err != nil || w.Ops != 0 {
		b.Fatal(w, err)
	}
	b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms/full-check")
}
