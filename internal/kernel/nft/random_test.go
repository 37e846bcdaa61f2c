package nft_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/nftables"
)

func randomAddr(r *rand.Rand, net byte) netip.Addr {
	switch r.IntN(20) {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.MustParseAddr("::ffff:10.0.0.1")
	case 2:
		return netip.MustParseAddr("fe80::1%eth0")
	case 3:
		return netip.IPv4Unspecified()
	case 4, 5, 6, 7:
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: net, 15: byte(r.IntN(8))})
	}
	return netip.AddrFrom4([4]byte{10, net, 0, byte(r.IntN(8))})
}

func several[T any](r *rand.Rand, most int, f func() T) []T {
	out := make([]T, r.IntN(most+1))
	for i := range out {
		out[i] = f()
	}
	return out
}

// randomService is a service of a small universe: many of them want the same addresses and ports.
func randomService(r *rand.Rand, name string) api.ServicePort {
	protocols := []api.Protocol{api.TCP, api.UDP, api.SCTP, "QUIC", ""}
	addr := func(net byte) func() netip.Addr { return func() netip.Addr { return randomAddr(r, net) } }
	prefix := func() netip.Prefix { a := randomAddr(r, 9); return netip.PrefixFrom(a, r.IntN(a.BitLen()+2)-1) }
	s := api.ServicePort{
		Name: api.ServicePortName{Name: name}, Protocol: protocols[min(r.IntN(20), r.IntN(20), 4)], Port: uint16(r.IntN(4)),
		ClusterIPs: several(r, 3, addr(1)), External: several(r, 2, addr(2)), NodePort: uint16(r.IntN(4)),
		ExternalLocal: r.IntN(2) == 0, InternalLocal: r.IntN(3) == 0, MasqueradeDisabled: r.IntN(4) == 0,
	}
	if r.IntN(3) == 0 {
		s.AffinitySeconds = r.IntN(100) - 10
	}
	for _, a := range several(r, 2, addr(3)) {
		s.LoadBalancer = append(s.LoadBalancer, netip.PrefixFrom(a, a.BitLen()))
	}
	s.SourceRanges = several(r, 4, prefix)
	s.Endpoints = several(r, 6, func() api.Endpoint {
		return api.Endpoint{
			Addr: netip.AddrPortFrom(randomAddr(r, 4), uint16(r.IntN(3))), Node: []string{"n", "m", ""}[r.IntN(3)],
			Ready: r.IntN(3) > 0, Serving: r.IntN(2) == 0, Terminating: r.IntN(2) == 0,
		}
	})
	return s
}

// TestRandomServices gives the kernel plans of odd and hostile services: it must take them all, one after the other, and hold what a plan
// from nothing would give.
func TestRandomServices(t *testing.T) {
	c := open(t)
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := proxy.Node{Name: "n", ClusterCIDRs: several(r, 2, func() netip.Prefix { return netip.MustParsePrefix("10.4.0.0/16") })}
		if r.IntN(2) == 0 {
			n.NodePortAddresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/8"), netip.MustParsePrefix("fd00::/8")}
		}
		n.OpenNodePorts, n.NoSCTP = r.IntN(4) == 0, r.IntN(4) == 0
		p := nftables.Planner{MasqueradeAll: r.IntN(4) == 0}
		m := nft.NewMerge(nft.INet, nft.TableName)
		fragments := map[string]nft.Table{"": p.Base(n)}
		program(t, c, nft.New())
		if err := c.Apply(m.Update(fragments)); err != nil {
			t.Fatal(err)
		}
		for step := range 12 {
			changes := map[string]nft.Table{}
			for range 1 + r.IntN(8) {
				name := fmt.Sprintf("s%d", r.IntN(30))
				changes[name] = p.Plan(n, randomService(r, name))
				fragments[name] = changes[name]
			}
			ops := m.Update(changes)
			if err := c.Apply(ops); err != nil {
				t.Fatalf("seed %d step %d: %v\n%v", seed, step, err, ops)
			}
			if ops := nft.Diff(nft.Union(fragments), read(t, c)); len(ops) > 0 {
				t.Fatalf("seed %d step %d: kernel and union differ: %v", seed, step, ops)
			}
		}
	}
}
