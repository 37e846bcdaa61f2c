package nft_test

import (
	"fmt"
	"testing"

	"weft/internal/nft"
)

// TestReadWhileGrowing reads a set right after it has grown a lot, while the kernel rebuilds it: nothing is missing and nothing comes twice.
func TestReadWhileGrowing(t *testing.T) {
	c := open(t)
	for round := range 24 {
		table := nft.New()
		s := nft.Set{Name: "grows", Key: []nft.Type{nft.NumGen}, Data: []nft.Type{nft.InetService}}
		for n := range uint32([]int{10, 1200, 40, 9000}[round%4]) {
			s.Elements = append(s.Elements, nft.Element{Key: nft.TupleBuilder(nil).Num(n).Tuple(), Data: nft.TupleBuilder(nil).Port(80).Tuple()})
		}
		table.Sets = []nft.Set{s}
		table.Sort()
		if err := c.Apply(nft.Diff(table, read(t, c))); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if ops := nft.Diff(table, read(t, c)); len(ops) > 0 {
				t.Fatalf("%d elements: read otherwise: %.300s", len(s.Elements), fmt.Sprint(ops))
			}
		}
	}
}
