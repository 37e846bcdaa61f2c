package rules

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/api"
	"weft/internal/xt"
)

// TestChainPlanIsTheWholePlan changes services at random: the rules that the ops of each change lead to are the ones planned anew.
func TestChainPlanIsTheWholePlan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	f := agenttest.Walkthrough(facts.IPTables)
	var plan ChainPlan
	var kernel xt.Ruleset
	pool := agenttest.Services(20, 3)
	partial := 0
	for round := range 100 {
		var services []api.ServicePort
		for i, s := range pool {
			if r.IntN(4) > 0 {
				services = append(services, s)
			}
			if r.IntN(10) == 0 {
				pool = agenttest.Changed(pool, i)
			}
		}
		if round%25 == 24 {
			f.Addrs = append([]netip.Addr{netip.AddrFrom4([4]byte{172, 17, 42, byte(round)})}, f.Addrs...)
		}
		snap := api.Snapshot{Services: services}
		ops, ok := plan.Update(f, own, snap, xt.Ruleset{})
		if ok {
			partial++
		} else {
			ops = xt.Diff(plan.Ruleset(), kernel)
		}
		for _, o := range ops {
			*kernel.Family(o.V6) = xt.Apply(*kernel.Family(o.V6), []xt.Op{o})
		}
		want := Plan(f, own, snap, guard.Guard{}).XT
		for _, x := range []xt.Ruleset{want, plan.Ruleset()} {
			if left := xt.Diff(x, kernel); len(left) > 0 {
				t.Fatalf("round %d (partial: %t): %d ops left, the first: %s", round, ok, len(left), left[0])
			}
		}
	}
	if partial < 90 {
		t.Errorf("%d of 100 changes were told from the services that changed", partial)
	}
}
