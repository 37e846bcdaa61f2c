package netstate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// randomState returns a State of a small universe, so that two of them share many IDs.
func randomState(r *rand.Rand) State {
	s := New()
	macs := []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}
	for i := range 4 {
		dev := fmt.Sprintf("flannel.%d", i)
		if r.IntN(3) > 0 {
			s.Add(Link{
				Name: dev, Type: TypeVXLAN, MTU: 1400 + r.IntN(2)*50, MAC: macs[r.IntN(2)], Up: r.IntN(2) == 0, Alias: "weft:vtep",
				VXLAN: VXLAN{
					VNI: uint32(1 + r.IntN(2)), Port: 8472, Dev: "eth0", Local: netip.AddrFrom4([4]byte{172, 17, 42, byte(r.IntN(2))}), Learning: r.IntN(2) == 0,
				},
			})
			for j := range 3 {
				ip := netip.AddrFrom4([4]byte{10, 0, byte(j), 0})
				if r.IntN(2) == 0 {
					s.Add(Neigh{Dev: dev, IP: ip, MAC: macs[r.IntN(2)]}, FDB{Dev: dev, MAC: macs[r.IntN(2)], Dst: ip})
				}
				s.Add(Route{Dst: netip.PrefixFrom(ip, 24), Via: ip, Dev: dev, Onlink: r.IntN(2) == 0})
			}
		}
	}
	if r.IntN(2) == 0 {
		s.Add(Sysctl{Name: "net/ipv4/ip_forward", Value: fmt.Sprint(r.IntN(2))})
	}
	s.Add(Listener{
		Service: "default/a:", Protocol: "TCP", Addr: netip.MustParseAddrPort("0.0.0.0:50948"),
		Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))}), 80)}, Fixed: r.IntN(2) == 0,
	})
	return s
}

func TestDiffLaws(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := randomState(r), randomState(r)
		if ops := Diff(want, want); len(ops) != 0 {
			t.Fatalf("seed %d: Diff(s, s) = %v, want none", seed, ops)
		}
		got := have.Apply(Diff(want, have)...)
		if !Equal(got, want) {
			t.Fatalf("seed %d: have.Apply(Diff(want, have)) =\n%swant\n%sops %v", seed, got, want, Diff(want, have))
		}
	}
}

func TestDiffNeverAddsOnAMissingLink(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 2))
		want, have := randomState(r), randomState(r)
		now := Union(have)
		for _, op := range Diff(want, have) {
			if on := op.Object.On(); on != "" {
				if _, ok := now.Get(ID{KindLink, on}); !ok {
					t.Fatalf("seed %d: %v before its link exists", seed, op)
				}
			}
			now = now.Apply(op)
		}
	}
}
