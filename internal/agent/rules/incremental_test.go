package rules

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/nft"
)

// TestIncrementalPlanIsTheWholePlan changes services at random: the table that the ops of each change lead to is the one planned anew.
func TestIncrementalPlanIsTheWholePlan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	f := agenttest.Walkthrough(facts.NFTables)
	var plan TablePlan
	var kernel *nft.Table
	pool := agenttest.Services(30, 3)
	for round := range 200 {
		var services []api.ServicePort
		for i, s := range pool {
			if r.IntN(4) > 0 {
				services = append(services, s)
			}
			if r.IntN(10) == 0 {
				pool = agenttest.Changed(pool, i)
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
		kernel = nft.Apply(kernel, plan.Update(ContentOf(f, own, snap, g))...)
		want := Plan(f, own, snap, g).Table
		if ops := nft.Diff(*want, kernel); len(ops) > 0 {
			t.Fatalf("round %d: %d objects differ, the first: %s", round, len(ops), ops[0])
		}
		if got := plan.Table().String(); got != want.String() {
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
	base := agenttest.Services(1, 2)[0]
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
