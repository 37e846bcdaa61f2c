package nft_test

import (
	"net/netip"
	"testing"
	"time"

	"weft/internal/nft"
)

// BenchmarkEdgeSets compares what one more lease costs in a set of 5,000: as exact keys in a hash, and as a concatenation of ranges.
func BenchmarkEdgeSets(b *testing.B) {
	c := open(b)
	table := nft.New()
	key := []nft.Type{nft.IPv4Addr, nft.IPv4Addr}
	sets := []nft.Set{{Name: "exact", Key: key}, {Name: "ranges", Key: key, Interval: true}}
	element := func(i int, ranges bool) nft.Element {
		outer := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		first, last := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 255})
		e := nft.Element{Key: nft.TupleBuilder(nil).Addr(outer).Addr(first).Tuple()}
		if ranges {
			e.KeyEnd = nft.TupleBuilder(nil).Addr(outer).Addr(last).Tuple()
		}
		return e
	}
	for s := range sets {
		for i := range 5000 {
			sets[s].Elements = append(sets[s].Elements, element(i, s == 1))
		}
	}
	table.Sets = sets
	if err := c.Apply(nft.Diff(table, nil)); err != nil {
		b.Fatal(err)
	}
	var took [2][]time.Duration
	i := 5000
	for b.Loop() {
		for s, set := range sets {
			set.Elements = []nft.Element{element(i, s == 1)}
			begun := time.Now()
			op := nft.Op{Verb: nft.Add, Kind: nft.KindElements, Family: nft.INet, Table: nft.TableName, Set: set}
			if err := c.Apply([]nft.Op{op}); err != nil {
				b.Fatal(err)
			}
			took[s] = append(took[s], time.Since(begun))
		}
		i++
	}
	b.ReportMetric(float64(median(took[0]).Nanoseconds())/1000, "µs-exact")
	b.ReportMetric(float64(median(took[1]))/float64(median(took[0])), "ranges-ratio")
}
