package iptables_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/proxy/iptables"
	"weft/internal/xt"
)

// TestMerge changes services at random, one or several at a time: the ops of xt.Merge must lead rules to what the plan of all services is, in
// the same kinds of chains wherever a rule stands in a list, and cost what changed.
func TestMerge(t *testing.T) {
	n := proxy.Node{Name: "kube-node1", Addresses: addrs("172.17.42.31", "fd00:17::31"), ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}}
	var p iptables.Planner
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := xt.NewMerge()
		if _, ok := m.Update(map[string]xt.Ruleset{"base": p.Base(n)}); ok {
			t.Fatal("jumps in chains of others are not told apart from what is there")
		}
		have := p.Base(n)
		now := map[string]api.ServicePort{}
		for step := range 20 {
			parts := map[string]xt.Ruleset{}
			for range 1 + r.IntN(3) {
				name := fmt.Sprintf("s%d", r.IntN(6))
				if delete(now, name); r.IntN(4) == 0 {
					parts[name] = xt.Ruleset{}
					continue
				}
				now[name] = oneOf(r, name)
				parts[name] = p.Plan(n, now[name])
			}
			ops, ok := m.Update(parts)
			if !ok {
				t.Fatalf("seed %d, step %d: not told from the parts", seed, step)
			}
			for _, v6 := range []bool{false, true} {
				var of []xt.Op
				for _, o := range ops {
					if o.V6 == v6 {
						of = append(of, o)
					}
				}
				*have.Family(v6) = xt.Apply(*have.Family(v6), of)
			}
			want := m.Ruleset()
			if left := xt.Diff(want, have); len(left) > 0 {
				t.Fatalf("seed %d, step %d: after %v left to do %v", seed, step, ops, left)
			}
			var list []api.ServicePort
			for _, s := range now {
				list = append(list, s)
			}
			if left := xt.Diff(p.All(n, list), have); len(left) > 0 {
				t.Fatalf("seed %d, step %d: not the plan of all services: %v", seed, step, left)
			}
		}
	}
}

// oneOf is a service of its own addresses.
func oneOf(r *rand.Rand, name string) api.ServicePort {
	id := name[1] - '0'
	s := api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: name}, Protocol: api.TCP, Port: 80,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 254, 0, id})}, ExternalLocal: r.IntN(2) == 0, InternalLocal: r.IntN(4) == 0,
		NodePort: uint16(r.IntN(2)) * (30000 + uint16(id)), AffinitySeconds: r.IntN(2) * 60, HealthCheckNodePort: uint16(r.IntN(2)) * (32000 + uint16(id)),
	}
	if r.IntN(2) == 0 {
		s.LoadBalancer = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, id}), 32)}
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24")}[:r.IntN(3)]
	}
	for i := range r.IntN(4) {
		s.Endpoints = append(s.Endpoints, api.Endpoint{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, id, byte(i)}), 80), Ready: true, Node: []string{"kube-node1", "b"}[r.IntN(2)],
		})
	}
	return s
}

// TestMergeCost: a replaced endpoint of one of many services touches chains of that service only, a new service adds one rule to the list.
func TestMergeCost(t *testing.T) {
	n := proxy.Node{Name: "kube-node1", Addresses: addrs("172.17.42.31")}
	var p iptables.Planner
	m := xt.NewMerge()
	parts := map[string]xt.Ruleset{"": p.Base(n)}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 6 {
		s := oneOf(r, fmt.Sprintf("s%d", i))
		parts[s.Name.Name] = p.Plan(n, s)
	}
	m.Update(parts)
	s := api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "s9"}, Protocol: api.TCP, Port: 80,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.9")},
		Endpoints:  []api.Endpoint{{Addr: netip.MustParseAddrPort("172.16.9.1:80"), Ready: true}},
	}
	at := n
	count := func(chain string) (n int) {
		ops, ok := m.Update(map[string]xt.Ruleset{"s9": p.Plan(at, s)})
		if !ok {
			t.Fatal("not told from the parts")
		}
		for _, o := range ops {
			if o.Chain == chain {
				n++
			}
		}
		return n
	}
	if got := count("WEFT-SERVICES"); got != 1 {
		t.Errorf("a new service: %d ops in the list, want 1", got)
	}
	s.Endpoints = []api.Endpoint{{Addr: netip.MustParseAddrPort("172.16.9.2:80"), Ready: true}}
	if got := count("WEFT-SERVICES"); got != 0 {
		t.Errorf("another endpoint: %d ops in the list, want none", got)
	}
}
