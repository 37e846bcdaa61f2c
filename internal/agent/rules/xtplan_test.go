package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

func manyServices(n int) (out []api.ServicePort) {
	for i := range n {
		s := api.ServicePort{
			Name:     api.ServicePortName{Namespace: fmt.Sprint("team-", i%50), Name: fmt.Sprintf("service-%05d", i), Port: "main"},
			Protocol: api.TCP, Port: 80, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)})},
		}
		for j := range 3 {
			s.Endpoints = append(s.Endpoints, readyEndpoint(byte(j), i))
		}
		out = append(out, s)
	}
	return out
}

func readyEndpoint(net byte, i int) api.Endpoint {
	return api.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20 + net, byte(i >> 8), byte(i)}), 8080), Ready: true}
}

// sameMemory reports whether the rulesets are one and the same.
func sameMemory(a, b xt.Ruleset) bool { return len(a.V4) > 0 && len(b.V4) > 0 && &a.V4[0] == &b.V4[0] }

// TestXTPlan changes services at random: what is kept must be what would be planned anew, in every mode.
func TestXTPlan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	all, ports := manyServices(20), userspace.Ports(nil)
	mode := facts.Userspace
	var x XTPlan
	kept, could := 0, 0
	var last xt.Ruleset
	for step := range 400 {
		i := r.IntN(len(all))
		all = slices.Clone(all)
		s := &all[i]
		k := r.IntN(20)
		if k < 12 && mode == facts.Userspace && len(s.Endpoints) > 0 {
			could++
		}
		switch {
		case k < 12: // another endpoint
			s.Endpoints = append(slices.Clone(s.Endpoints[min(1, len(s.Endpoints)):]), readyEndpoint(byte(10+r.IntN(9)), i))
		case k < 14:
			s.Endpoints = nil
		case k == 14:
			s.NodePort = uint16(30000 + r.IntN(3))
		case k == 15:
			all = slices.Delete(all, i, i+1)
		case k == 16:
			all = slices.Insert(all, i, manyServices(500 + step)[499+step])
		case k == 17:
			s.ExternalLocal = !s.ExternalLocal
		case k == 18:
			mode = []facts.ProxyMode{facts.Userspace, facts.IPTables, facts.Userspace, facts.NFTables, facts.Userspace}[r.IntN(5)]
		default:
			ports = preferredPorts(Node(agenttest.Walkthrough(mode), api.Snapshot{}), all, nil)
			ports[fmt.Sprint("other", r.IntN(2))] = 1
		}
		f, snap := agenttest.Walkthrough(mode), api.Snapshot{Services: all}
		have, want := x.Plan(f, api.Lease{}, snap, ports), PlanXT(f, api.Lease{}, snap, ports)
		if have.XT.String() != want.XT.String() || fmt.Sprint(have.Listeners) != fmt.Sprint(want.Listeners) {
			t.Fatalf("step %d, mode %s:\n%s\nanew:\n%s", step, mode, have.XT, want.XT)
		}
		if sameMemory(have.XT, last) {
			kept++
		}
		last = have.XT
	}
	if could < 50 || kept < could {
		t.Errorf("the plan was kept %d times, could be %d times", kept, could)
	}
}

// BenchmarkXTPlan changes an endpoint of one of 1,000 services.
func BenchmarkXTPlan(b *testing.B) {
	for _, mode := range []facts.ProxyMode{facts.Userspace, facts.IPTables} {
		b.Run(string(mode), func(b *testing.B) {
			f, all := agenttest.Walkthrough(mode), manyServices(1000)
			ports := preferredPorts(Node(f, api.Snapshot{}), all, nil)
			var x XTPlan
			for i := 0; b.Loop(); i++ {
				all = slices.Clone(all)
				all[i%1000].Endpoints = []api.Endpoint{readyEndpoint(byte(10+i/1000), i)}
				x.Plan(f, api.Lease{}, api.Snapshot{Services: all}, ports)
			}
		})
	}
}

// TestFirstEndpointInPlace: a service that had no endpoint is served when it gets one, though the reader's list of services, which is changed in
// place, says by then that it always had.
func TestFirstEndpointInPlace(t *testing.T) {
	f := agenttest.Walkthrough(facts.Userspace)
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24")}
	services := []api.ServicePort{agenttest.Nginx()}
	var x XTPlan
	x.Plan(f, own, api.Snapshot{Services: services, Changes: &api.ServiceChanges{To: 1, Fresh: slices.Clone(services)}}, nil)
	for version := uint64(1); version < 5; version++ {
		var endpoints []string
		if version%2 == 1 {
			endpoints = []string{"172.16.78.2:80"}
		}
		services[0] = agenttest.Nginx(endpoints...)
		snap := api.Snapshot{Services: services, Changes: &api.ServiceChanges{From: version, To: version + 1, Fresh: slices.Clone(services)}}
		got, want := x.Plan(f, own, snap, nil).XT.String(), PlanXT(f, own, snap, nil).XT.String()
		if got != want {
			t.Errorf("version %d: got\n%s\nwant\n%s", version, got, want)
		}
	}
}
