package nft_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"weft/internal/nft"
)

// manyAddresses is a set of n addresses from the first one on.
func manyAddresses(first, n int) nft.Set {
	s := nft.Set{Name: "many", Key: []nft.Type{nft.IPv4Addr, nft.InetService}}
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(10<<24+first+i))
		s.Elements = append(s.Elements, nft.Element{Key: nft.TupleBuilder(nil).Addr(netip.AddrFrom4(a)).Port(80).Tuple()})
	}
	return s
}

// TestRoom makes a set with many elements, which gets a size, and then fills it beyond that: it must get more room, in one call with what is
// in it, and nothing may be lost or refused. The size is nothing that a plan differs in.
func TestRoom(t *testing.T) {
	c := open(t)
	want := nft.New()
	want.Sets = []nft.Set{manyAddresses(0, 5000)}
	want.Chains = []nft.Chain{{Name: "a", Rules: []nft.Rule{{Statements: []nft.Statement{
		nft.Lookup{Key: []nft.Expr{{Field: nft.IPDaddr}, {Field: nft.ThDport}}, Set: "many"}, nft.Verdict{Kind: nft.Drop},
	}}}}}
	sizes := []uint32{}
	for _, n := range []int{5000, 5001, 20000, 20001, 60000, 10} {
		want.Sets[0] = manyAddresses(0, n)
		have, err := c.Read(nft.INet, nft.TableName)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(nft.Diff(want, have)); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		if have, err = c.Read(nft.INet, nft.TableName); err != nil {
			t.Fatal(err)
		}
		if ops := nft.Diff(want, have); len(ops) > 0 {
			t.Fatalf("%d: left to do: %v", n, ops)
		}
		size := have.Set("many").Size
		if int(size) < n {
			t.Fatalf("%d: size %d", n, size)
		}
		sizes = append(sizes, size)
	}
	if sizes[0] != sizes[1] || sizes[1] == sizes[2] || sizes[2] != sizes[3] || sizes[3] == sizes[4] || sizes[4] != sizes[5] {
		t.Fatalf("sizes %d: want them changed by what does not fit only", sizes)
	}
}

// TestRoomSmall: a set with few elements grows by itself, and has no size.
func TestRoomSmall(t *testing.T) {
	c := open(t)
	want := nft.New()
	want.Sets = []nft.Set{manyAddresses(0, 100)}
	if err := c.Apply(nft.Diff(want, nil)); err != nil {
		t.Fatal(err)
	}
	want.Sets[0] = manyAddresses(0, 10000)
	have := read(t, c)
	if err := c.Apply(nft.Diff(want, have)); err != nil {
		t.Fatal(err)
	}
	if have = read(t, c); have.Set("many").Size != 0 || len(have.Set("many").Elements) != 10000 {
		t.Fatalf("size %d, %d elements", have.Set("many").Size, len(have.Set("many").Elements))
	}
}
