package nft_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
)

// large is a table with a map and a verdict map that are large enough to be read by key.
func large(n int) nft.Table {
	t := nft.New()
	t.Chains = []nft.Chain{{Name: "one"}, {Name: "two"}}
	m := nft.Set{Name: "list", Key: []nft.Type{nft.IPv4Addr, nft.InetService, nft.NumGen}, Data: []nft.Type{nft.IPv4Addr, nft.InetService}}
	v := nft.Set{Name: "verdicts", Key: []nft.Type{nft.NumGen}, Verdicts: true}
	for i := range uint32(n) {
		m.Elements = append(m.Elements, nft.Element{
			Key:  nft.TupleBuilder(nil).Num(i / 10).Port(80).Num(i % 10).Tuple(),
			Data: nft.TupleBuilder(nil).Num(i).Port(8080).Tuple(),
		})
		v.Elements = append(v.Elements, nft.Element{
			Key: nft.TupleBuilder(nil).Num(i).Tuple(), Verdict: nft.Verdict{Kind: nft.Jump, Chain: []string{"one", "two"}[i%2]},
		})
	}
	t.Sets = []nft.Set{m, v}
	t.Sort()
	return t
}

// copyOf is the table with lists of its own.
func copyOf(t nft.Table) nft.Table {
	t.Chains, t.Sets = slices.Clone(t.Chains), slices.Clone(t.Sets)
	for i := range t.Sets {
		t.Sets[i].Elements = slices.Clone(t.Sets[i].Elements)
	}
	return t
}

// TestCompare reads large sets by the plan's keys: what is missing, more, or different in the kernel is found, as by reading everything.
func TestCompare(t *testing.T) {
	c := open(t)
	kernel.LookupFrom(c, 1000)
	want := large(2500)
	if err := c.Apply(nft.Diff(want, nil)); err != nil {
		t.Fatal(err)
	}
	kernel.OnWhole(c, func(set string) { t.Errorf("%s was read as a whole", set) })
	if ops, err := c.Compare(&want); len(ops) > 0 || err != nil {
		t.Fatalf("with everything in place: %d ops, %v", len(ops), err)
	}
	kernel.OnWhole(c, nil)
	drop := func(s *nft.Set, from, to int) { s.Elements = slices.Delete(s.Elements, from, to) }
	for name, injure := range map[string]func(list, verdicts *nft.Set){
		"nothing":       func(_, _ *nft.Set) {},
		"first missing": func(l, v *nft.Set) { drop(l, 0, 1); drop(v, 0, 1) },
		"last missing": func(l, v *nft.Set) {
			drop(l, len(l.Elements)-1, len(l.Elements))
			drop(v, len(v.Elements)-1, len(v.Elements))
		},
		"many missing": func(l, v *nft.Set) { drop(l, 100, 900); drop(v, 7, 2007) },
		"all missing":  func(l, v *nft.Set) { l.Elements, v.Elements = nil, nil },
		"scattered":    func(l, v *nft.Set) { scatter(l); scatter(v) },
		"others": func(l, v *nft.Set) {
			l.Elements[777].Data = nft.TupleBuilder(nil).Num(1).Port(1).Tuple()
			v.Elements[3].Verdict.Chain = "two"
		},
		"another verdict": func(_, v *nft.Set) { v.Elements[30].Verdict = nft.Verdict{Kind: nft.Drop} },
		"one missing, one more": func(l, v *nft.Set) {
			l.Elements[0].Key = nft.TupleBuilder(nil).Num(1 << 30).Port(1).Num(1).Tuple()
			v.Elements[5].Key = nft.TupleBuilder(nil).Num(1 << 30).Tuple()
		},
	} {
		injured := copyOf(want)
		injure(injured.Set("list"), injured.Set("verdicts"))
		injured.Sort()
		if err := c.Apply(nft.Diff(injured, read(t, c))); err != nil {
			t.Fatal(name, err)
		}
		shuffled := copyOf(want)
		for _, s := range shuffled.Sets {
			rand.Shuffle(len(s.Elements), func(i, j int) { s.Elements[i], s.Elements[j] = s.Elements[j], s.Elements[i] })
		}
		ops, err := c.Compare(&shuffled)
		if err != nil {
			t.Fatal(name, err)
		}
		if d := cmp.Diff(nft.Diff(want, &injured), ops); d != "" {
			t.Errorf("%s: -ops by comparing all +ops:\n%.2000s", name, d)
		}
		for _, s := range injured.Sets {
			if n, err := c.Len(nft.INet, nft.TableName, s); n != len(s.Elements) || err != nil {
				t.Errorf("%s: %s has %d elements (%v), want %d", name, s.Name, n, err, len(s.Elements))
			}
		}
		if len(ops) == 0 != (name == "nothing") {
			t.Errorf("%s: %d ops", name, len(ops))
		}
		if err := c.Apply(ops); err != nil {
			t.Fatal(name, err)
		}
		if ops := nft.Diff(want, read(t, c)); len(ops) > 0 {
			t.Errorf("%s: %d ops are left", name, len(ops))
		}
	}
}

// scatter takes every third element away.
func scatter(s *nft.Set) {
	var left []nft.Element
	for i, e := range s.Elements {
		if i%3 != 0 {
			left = append(left, e)
		}
	}
	s.Elements = left
}

// TestCompareLists: what lists of the plan before have too much is found without reading the whole set.
func TestCompareLists(t *testing.T) {
	c := open(t)
	kernel.LookupFrom(c, 1000)
	all := large(2500)
	owners := nft.Set{Name: "owners", Key: all.Set("list").Key[:2]}
	for i := range uint32(250) {
		owners.Elements = append(owners.Elements, nft.Element{Key: nft.TupleBuilder(nil).Num(i).Port(80).Tuple()})
	}
	all.Sets = append(all.Sets, owners)
	all.Sort()
	if err := c.Apply(nft.Diff(all, nil)); err != nil {
		t.Fatal(err)
	}
	without := func(gone func(owner, number uint32) bool) nft.Table {
		want := copyOf(all)
		for _, name := range []string{"list", "owners"} {
			s := want.Set(name)
			s.Elements = slices.DeleteFunc(s.Elements, func(e nft.Element) bool {
				v := e.Key.Values(all.Set("list").Key[:2])
				if name == "list" {
					v = e.Key.Values(s.Key)
					return gone(binary.NativeEndian.Uint32(v[0].Addr.AsSlice()), v[2].Num)
				}
				return gone(binary.NativeEndian.Uint32(v[0].Addr.AsSlice()), 0)
			})
		}
		return want
	}
	for name, gone := range map[string]func(owner, number uint32) bool{
		"lists":            func(owner, _ uint32) bool { return owner%50 == 7 },
		"all but one list": func(owner, _ uint32) bool { return owner != 9 },
		"ends of lists":    func(owner, number uint32) bool { return owner%3 == 1 && number > 5 },
		"both":             func(owner, number uint32) bool { return owner == 249 || owner == 3 && number > 0 },
		"beginnings":       func(owner, number uint32) bool { return owner == 5 && number < 3 },
	} {
		want, dumped := without(gone), false
		kernel.OnWhole(c, func(set string) { dumped = dumped || set == "list" })
		ops, err := c.Compare(&want)
		if err != nil {
			t.Fatal(name, err)
		}
		if d := cmp.Diff(nft.Diff(want, &all), ops); d != "" {
			t.Errorf("%s: -ops by comparing all +ops:\n%.2000s", name, d)
		}
		if dumped != (name == "beginnings") {
			t.Errorf("%s: the whole set was read: %t", name, dumped)
		}
	}
}

// TestCompareCatchAll: an element for all other keys is not counted by the kernel, and seen all the same.
func TestCompareCatchAll(t *testing.T) {
	c := open(t)
	kernel.LookupFrom(c, 1000)
	want := large(2500)
	if err := c.Apply(nft.Diff(want, nil)); err != nil {
		t.Fatal(err)
	}
	run(t, "nft add element inet weft verdicts { '*' : drop }")
	ops, err := c.Compare(&want)
	if err != nil {
		t.Fatal(err)
	}
	if len(ops) != 1 || ops[0].String() != "delete element inet weft verdicts { * }" {
		t.Errorf("ops %v", ops)
	}
	if err := c.Apply(ops); err != nil {
		t.Fatal(err)
	}
	if ops := nft.Diff(want, read(t, c)); len(ops) > 0 {
		t.Errorf("left to do: %v", ops)
	}
}

// TestCompareAnew: where the table has to be made anew the ops make all of it, also what a large set has as wanted.
func TestCompareAnew(t *testing.T) {
	c := open(t)
	kernel.LookupFrom(c, 1000)
	want := large(2500)
	other := copyOf(want)
	other.Set("list").Timeout = 600
	other.Set("verdicts").Elements = other.Set("verdicts").Elements[:2400]
	if err := c.Apply(nft.Diff(other, nil)); err != nil {
		t.Fatal(err)
	}
	ops, err := c.Compare(&want)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(ops); err != nil {
		t.Fatal(err)
	}
	if ops := nft.Diff(want, read(t, c)); len(ops) > 0 {
		t.Errorf("%d ops are left", len(ops))
	}
}
