package nft

import (
	"net/netip"
	"slices"
	"strings"
)

// Diff returns the ops that turn have into want; have is nil when there is no table. Both must be in canonical form.
//
// In their order nothing refers to what is not there yet: a kernel that takes them in several transactions has a working service
// or none at every moment, never half of one. Where a set or a base chain must be made anew because its declaration changed, the
// whole table is: dynamic elements are then lost.
//
// Diff(&t, &t) is empty, and Apply(have, Diff(want, have)...) equals want. Dynamic elements are not compared.
func Diff(want Table, have *Table) []Op {
	d := newDelta(want.Family, want.Name)
	if have != nil && mustRecreate(want, *have) {
		d.early = append(d.early, d.op(Del, KindTable))
		have = nil
	}
	if have == nil {
		d.early = append(d.early, d.op(Add, KindTable))
		have = &Table{}
	}
	d.diffChains(want.Chains, have.Chains)
	d.diffSets(want.Sets, have.Sets)
	return d.ops()
}

// mustRecreate reports whether an object of have has another declaration than the one of the same name in want.
func mustRecreate(want, have Table) bool {
	differs := false
	each(want.Chains, have.Chains, chainName, func(w, h *Chain) {
		differs = differs || w != nil && h != nil && w.Base != h.Base
	})
	each(want.Sets, have.Sets, setName, func(w, h *Set) {
		differs = differs || w != nil && h != nil && !sameDeclaration(*w, *h)
	})
	return differs
}

func chainName(c *Chain) string { return c.Name }
func setName(s *Set) string     { return s.Name }

// SameDeclaration reports whether two sets are the same but for their elements.
func SameDeclaration(a, b Set) bool { return sameDeclaration(a, b) }

func sameDeclaration(a, b Set) bool {
	return a.Name == b.Name && slices.Equal(a.Key, b.Key) && slices.Equal(a.Data, b.Data) && a.Verdicts == b.Verdicts &&
		a.Interval == b.Interval && a.Dynamic == b.Dynamic && a.Timeout == b.Timeout && (a.Size == b.Size || !a.Dynamic)
}

// each calls f for the objects of two sorted lists, pairs by name; the one that is missing is nil.
func each[T any](want, have []T, name func(*T) string, f func(w, h *T)) {
	i, j := 0, 0
	for i < len(want) || j < len(have) {
		c := 0
		switch {
		case i == len(want):
			c = 1
		case j == len(have):
			c = -1
		default:
			c = strings.Compare(name(&want[i]), name(&have[j]))
		}
		switch {
		case c < 0:
			f(&want[i], nil)
			i++
		case c > 0:
			f(nil, &have[j])
			j++
		default:
			f(&want[i], &have[j])
			i++
			j++
		}
	}
}

// delta collects the ops of one change by what they do, to bring them in order.
type delta struct {
	family Family
	table  string

	early []Op // the table itself
	made  []Op // new chains and sets
	rules []Op // rules of regular chains
	base  []Op // rules of base chains
	flush []Op // rules of chains that go
	gone  []Op // chains that go
	unset []Op // sets that go
	elems []elems
}

// elems is what happens to the elements of one set.
type elems struct {
	set              Set // without elements
	add, change, del []Element
}

func newDelta(f Family, name string) *delta { return &delta{family: f, table: name} }

func (d *delta) op(v Verb, k Kind) Op { return Op{Verb: v, Kind: k, Family: d.family, Table: d.table} }

func (d *delta) chainOp(v Verb, k Kind, c Chain) Op {
	o := d.op(v, k)
	o.Chain = c
	if k == KindChain {
		o.Chain.Rules = nil
	}
	return o
}

func (d *delta) setOp(v Verb, k Kind, s Set, elements []Element) Op {
	o := d.op(v, k)
	o.Set = s
	o.Set.Elements = elements
	return o
}

// chain notes how a chain changes; nil is a chain that is not there.
func (d *delta) chain(want, have *Chain) {
	switch {
	case want == nil && have == nil:
		return
	case want == nil:
		if len(have.Rules) > 0 {
			d.flush = append(d.flush, d.chainOp(Change, KindRules, Chain{Name: have.Name, Base: have.Base}))
		}
		d.gone = append(d.gone, d.chainOp(Del, KindChain, *have))
		return
	case have == nil:
		d.made = append(d.made, d.chainOp(Add, KindChain, *want))
		if len(want.Rules) == 0 {
			return
		}
	case SameRules(want.Rules, have.Rules):
		return
	}
	o := d.chainOp(Change, KindRules, *want)
	if want.Base == (Base{}) {
		d.rules = append(d.rules, o)
	} else {
		d.base = append(d.base, o)
	}
}

// SameRules reports whether two chains have the same rules.
func SameRules(a, b []Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Rule) bool {
		return x.Comment == y.Comment && slices.EqualFunc(x.Statements, y.Statements, Equal)
	})
}

// Equal reports whether two statements are the same.
func Equal(a, b Statement) bool {
	restA, keyA, dataA := apart(a)
	restB, keyB, dataB := apart(b)
	return restA == restB && slices.Equal(keyA, keyB) && slices.Equal(dataA, dataB)
}

// rest is a statement without its lists, which can be compared.
type rest struct {
	kind     byte // of those with lists, 0 for others
	other    Statement
	flag     bool
	set      string
	to       netip.AddrPort
	duration uint32
}

// apart takes a statement apart into what can be compared and its lists.
func apart(s Statement) (r rest, key, data []Expr) {
	switch x := s.(type) {
	case Lookup:
		return rest{kind: 'l', flag: x.Not, set: x.Set}, x.Key, nil
	case VMap:
		return rest{kind: 'v', set: x.Map}, x.Key, nil
	case DNAT:
		return rest{kind: 'd', flag: x.V6, set: x.Map, to: x.To}, x.Key, nil
	case Update:
		return rest{kind: 'u', set: x.Set, to: x.To, duration: x.Timeout}, x.Key, x.Data
	}
	return rest{other: s}, nil, nil
}

func (d *delta) diffChains(want, have []Chain) { each(want, have, chainName, d.chain) }

func (d *delta) diffSets(want, have []Set) {
	each(want, have, setName, func(w, h *Set) {
		switch {
		case w == nil:
			d.unset = append(d.unset, d.setOp(Del, KindSet, *h, nil))
		case h == nil:
			d.made = append(d.made, d.setOp(Add, KindSet, *w, nil))
			if !w.Dynamic {
				d.addElems(*w, w.Elements, nil, nil)
			}
		case !w.Dynamic:
			d.addElems(*w, nil, nil, nil)
			e := &d.elems[len(d.elems)-1]
			eachElement(w.Elements, h.Elements, e.note)
		}
	})
}

func (d *delta) addElems(s Set, add, change, del []Element) {
	s.Elements = nil
	d.elems = append(d.elems, elems{s, add, change, del})
}

// note notes how an element changes; nil is an element that is not there.
func (e *elems) note(want, have *Element) {
	switch {
	case want == nil && have == nil:
	case want == nil:
		e.del = append(e.del, *have)
	case have == nil:
		e.add = append(e.add, *want)
	case *want != *have:
		e.change = append(e.change, *want)
	}
}

// SameList reports whether two lists are one in memory.
func SameList(a, b []Element) bool { return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] }

// eachElement calls f for the elements of two sorted lists, pairs by key; not at all where the two are one list.
func eachElement(want, have []Element, f func(w, h *Element)) {
	if SameList(want, have) {
		return
	}
	i, j := 0, 0
	for i < len(want) && j < len(have) {
		switch c := compareElements(want[i], have[j]); {
		case c < 0:
			f(&want[i], nil)
			i++
		case c > 0:
			f(nil, &have[j])
			j++
		default:
			f(&want[i], &have[j])
			i++
			j++
		}
	}
	for ; i < len(want); i++ {
		f(&want[i], nil)
	}
	for ; j < len(have); j++ {
		f(nil, &have[j])
	}
}

// ops brings the ops in order. Values come before the verdicts that lead to them, verdicts before the hooks that look them up, and
// the other way round for what goes.
func (d *delta) ops() []Op {
	values, verdicts := d.elementOps(false), d.elementOps(true)
	return slices.Concat(d.early, d.made, values.change, values.add, d.rules, verdicts.change, verdicts.add, d.base,
		verdicts.del, d.flush, values.del, d.unset, d.gone)
}

type elementOps struct{ add, change, del []Op }

func (d *delta) elementOps(verdicts bool) elementOps {
	var out elementOps
	slices.SortStableFunc(d.elems, func(a, b elems) int { return strings.Compare(a.set.Name, b.set.Name) })
	for _, e := range d.elems {
		if e.set.Verdicts != verdicts {
			continue
		}
		if len(e.change) > 0 {
			out.change = append(out.change, d.setOp(Change, KindElements, e.set, e.change))
		}
		if len(e.add) > 0 {
			out.add = append(out.add, d.setOp(Add, KindElements, e.set, e.add))
		}
		if len(e.del) > 0 {
			out.del = append(out.del, d.setOp(Del, KindElements, e.set, e.del))
		}
	}
	return out
}
