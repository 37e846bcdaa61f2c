package nft

import (
	"slices"
	"strings"

	"weft/internal/nft"
)

// result returns the elements; those of interval sets with one component are put together from their ends: a range lasts from its
// element to the next end, or for ever.
func (r *elementReader) result() []nft.Element {
	if !r.set.Interval || len(r.set.Key) > 1 {
		return r.out
	}
	n := r.set.Key[0].Len()
	slices.SortFunc(r.out, func(a, b nft.Element) int { return strings.Compare(string(a.Key), string(b.Key)) })
	slices.Sort(r.ends)
	for i := range r.out {
		e := &r.out[i]
		j, _ := slices.BinarySearch(r.ends, e.Key+"\x00") // the first end behind the key
		last := []byte(strings.Repeat("\xff", n))
		if j < len(r.ends) {
			last = before([]byte(r.ends[j])[:n])
		}
		last = append(last, make([]byte, align(n)-n)...)
		if k := nft.Tuple(last); k != e.Key {
			e.KeyEnd = k
		}
	}
	return r.out
}

// before subtracts one from a number in network byte order.
func before(v []byte) []byte {
	v = slices.Clone(v)
	for i := len(v) - 1; i >= 0; i-- {
		if v[i]--; v[i] != 0xff {
			break
		}
	}
	return v
}
