package netstate

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func randomObject(r *rand.Rand) Object {
	n := byte(r.IntN(40))
	mac := []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}[r.IntN(2)]
	switch r.IntN(3) {
	case 0:
		return Neigh{Dev: "flannel.1", IP: netip.AddrFrom4([4]byte{10, 0, n, 0}), MAC: mac}
	case 1:
		return Sysctl{Name: "net/ipv4/conf/x" + string('a'+rune(n)) + "/forwarding", Value: mac}
	}
	return Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, n, 0}), 24), Dev: "flannel.1", MTU: 1400 + r.IntN(2)}
}

// TestSharingIsNotSeen: States that share memory behave as those that do not, and no change of one shows in another.
func TestSharingIsNotSeen(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		plain := New()
		for range r.IntN(60) {
			plain.Add(randomObject(r))
		}
		frozen := Union(plain).Freeze()
		other := Union(plain)
		for range r.IntN(10) {
			other.Add(randomObject(r))
			other.Remove(IDOf(randomObject(r)))
		}
		pairs := [][2]State{ // sharing, not sharing
			{frozen, plain},
			{frozen.Select(func(Object) bool { return true }), Union(plain)},
			{frozen.Select(func(o Object) bool { return o.Kind() != KindNeigh }), plain.Select(func(o Object) bool { return o.Kind() != KindNeigh })},
			{other.Like(frozen), other},
			{frozen.Select(func(Object) bool { return true }).Freeze(), Union(plain)},
		}
		for round := range 20 {
			for i, p := range pairs {
				if !Equal(p[0], p[1]) || !Equal(p[1], p[0]) || p[0].Len() != p[1].Len() || p[0].String() != p[1].String() {
					t.Fatalf("round %d, pair %d:\n%swant\n%s", round, i, p[0], p[1])
				}
				if ops := Diff(p[0], p[1]); len(ops) > 0 {
					t.Fatalf("round %d, pair %d: %v", round, i, ops)
				}
				if !Equal(Union(p[0]), p[1]) {
					t.Fatalf("round %d, pair %d: another copy", round, i)
				}
			}
			i := r.IntN(len(pairs))
			o := randomObject(r)
			for j := range 2 {
				if round%2 == 0 {
					pairs[i][j].Add(o)
				} else {
					pairs[i][j].Remove(IDOf(o))
				}
			}
		}
	}
}
