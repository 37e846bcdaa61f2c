package claim

import (
	"net/netip"
	"slices"

	"weft/internal/lease"
)

// choices is how many free subnets the random one is taken from, as in flannel: more only makes the map sparser, fewer make
// hosts that start together collide.
const choices = 100

// free returns the first n subnets of the range that overlap none of blocked, in order. It takes as many steps as there are
// blockers and results, however large the range is.
func free(r lease.Range, blocked []netip.Prefix, n int) []netip.Prefix {
	blocked = disjoint(blocked)
	var out []netip.Prefix
	at, ok := netip.PrefixFrom(r.Min, r.SubnetLen), r.Min.IsValid()
	for i := 0; ok && len(out) < n && !r.Max.Less(at.Addr()); {
		for i < len(blocked) && lease.Last(blocked[i]).Less(at.Addr()) {
			i++
		}
		if i == len(blocked) || !blocked[i].Overlaps(at) {
			out = append(out, at)
		} else if blocked[i].Bits() < at.Bits() {
			at = netip.PrefixFrom(lease.Last(blocked[i]), at.Bits()).Masked()
		}
		at, ok = lease.Next(at)
	}
	return out
}

// disjoint sorts prefixes of one family by address and drops those inside another.
func disjoint(all []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(all), netip.Prefix.Compare)
	out := sorted[:0]
	for _, p := range sorted {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
