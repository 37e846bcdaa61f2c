package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weft/internal/overlay/edge"
)

func memberOf(i int) edge.Member {
	return edge.Member{
		VNI: 1, Outer: netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)}),
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
	}
}

// TestMemberListIsASortedList: after any changes it is what a sorted slice would be, the lists before stay as they were, and the
// differences of two of them are those of the slices.
func TestMemberListIsASortedList(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var l, old Members
	var want, oldWant []edge.Member
	for step := range 6000 {
		m := memberOf(r.IntN(600))
		i, there := slices.BinarySearchFunc(want, m, compareMembers)
		if l.has(m) != there {
			t.Fatalf("step %d: %v is there: %v", step, m, !there)
		}
		want = slices.Clone(want)
		switch grow := step%2000 < 1200; {
		case grow && !there:
			l, want = l.with(m), slices.Insert(want, i, m)
		case !grow && there:
			l, want = l.without(m), slices.Delete(want, i, i+1)
		}
		if step%97 != 0 {
			continue
		}
		if got := slices.Collect(l.All()); !slices.Equal(got, want) || l.n != len(want) {
			t.Fatalf("step %d: %d members, want %d", step, l.n, len(want))
		}
		if got := slices.Collect(old.All()); !slices.Equal(got, oldWant) {
			t.Fatalf("step %d: the list before has changed", step)
		}
		var gone, fresh []edge.Member
		Differences(old, l, func(m edge.Member) { gone = append(gone, m) }, func(m edge.Member) { fresh = append(fresh, m) })
		not := func(a, b []edge.Member) []edge.Member {
			return slices.DeleteFunc(slices.Clone(a), func(m edge.Member) bool { return slices.Contains(b, m) })
		}
		if !slices.Equal(gone, not(oldWant, want)) || !slices.Equal(fresh, not(want, oldWant)) {
			t.Fatalf("step %d: gone %v, fresh %v", step, gone, fresh)
		}
		old, oldWant = l, want
	}
}
