package nft

import (
	"maps"
	"slices"
	"strings"
)

// Merge is the union of the fragments of several owners, kept so that the change of one costs that one. Objects that several want
// are there as long as one of them wants them.
//
// Where two want the same key with different values, the owner whose name sorts first gets it; where they want a chain or a set of the
// same name to be different, the one whose text sorts first. So the union does not depend on the order of changes.
//
// The zero Merge is not ready for use: NewMerge makes one.
type Merge struct {
	family    Family
	name      string
	fragments map[string]Table
	chains    map[string]*variants[Chain]
	sets      map[string]*setClaims
}

// NewMerge returns the empty union for a table.
func NewMerge(f Family, name string) *Merge {
	return &Merge{
		family: f, name: name,
		fragments: map[string]Table{}, chains: map[string]*variants[Chain]{}, sets: map[string]*setClaims{},
	}
}

// Union returns the union of fragments by owner.
func Union(fragments map[string]Table) Table {
	m := NewMerge(INet, TableName)
	m.Update(fragments)
	return m.Table()
}

// variants are the different forms owners want one object in, nearly always one.
type variants[T any] struct {
	all []variant[T]
}

type variant[T any] struct {
	value T
	text  string // made only when there is more than one
	refs  int
}

// add counts a claim; text prints a value, same compares two. It returns the value that was there before and is the same.
func (v *variants[T]) add(value T, n int, same func(a, b T) bool, text func(T) string) *T {
	for i := range v.all {
		if same(v.all[i].value, value) {
			if v.all[i].refs += n; v.all[i].refs == 0 {
				v.all = slices.Delete(v.all, i, i+1)
				return nil
			}
			return &v.all[i].value
		}
	}
	v.all = append(v.all, variant[T]{value: value, refs: n})
	if len(v.all) > 1 {
		for i := range v.all {
			v.all[i].text = text(v.all[i].value)
		}
		slices.SortFunc(v.all, func(a, b variant[T]) int { return strings.Compare(a.text, b.text) })
	}
	return nil
}

// get returns the form that wins, nil when nobody wants the object.
func (v *variants[T]) get() *T {
	if v == nil || len(v.all) == 0 {
		return nil
	}
	return &v.all[0].value
}

func sameChain(a, b Chain) bool {
	shared := len(a.Rules) > 0 && len(a.Rules) == len(b.Rules) && &a.Rules[0] == &b.Rules[0]
	return a.Base == b.Base && (shared || SameRules(a.Rules, b.Rules))
}

func declarationText(s Set) string { return s.declaration("") }

// touched remembers what objects were before an update.
type touched struct {
	chains map[string]*Chain
	sets   map[string]*Set
}

// Set replaces the fragment of one owner and returns the ops that bring a kernel that has the union before to the union after.
func (m *Merge) Set(owner string, fragment Table) []Op {
	return m.Update(map[string]Table{owner: fragment})
}

// Update replaces the fragments of several owners in one go. An empty fragment removes the owner. The fragments belong to the Merge
// from then on: they may not be changed.
func (m *Merge) Update(fragments map[string]Table) []Op {
	t := &touched{map[string]*Chain{}, map[string]*Set{}}
	m.put(fragments, t)
	ops := m.changes(t)
	for name := range t.sets {
		c := m.sets[name]
		if c.settle(); len(c.declaration.all) == 0 {
			delete(m.sets, name)
		}
	}
	return ops
}

// Empty reports whether nobody wants anything.
func (m *Merge) Empty() bool { return len(m.fragments) == 0 }

// Owners returns the names of the owners that want something, sorted.
func (m *Merge) Owners() []string { return slices.Sorted(maps.Keys(m.fragments)) }

func (m *Merge) put(fragments map[string]Table, t *touched) {
	sizes := map[string]int{}
	for _, f := range fragments {
		for i := range f.Sets {
			sizes[f.Sets[i].Name] += len(f.Sets[i].Elements)
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(fragments)) {
		f := fragments[owner]
		if old, ok := m.fragments[owner]; ok {
			m.count(owner, &old, -1, t, sizes)
			delete(m.fragments, owner)
		}
		if len(f.Chains) == 0 && len(f.Sets) == 0 {
			continue
		}
		m.fragments[owner] = f
		m.count(owner, &f, 1, t, sizes)
	}
}

// count adds (n is 1) or removes (n is -1) the claims of a fragment. sizes are how many elements a new set may get.
func (m *Merge) count(owner string, f *Table, n int, t *touched, sizes map[string]int) {
	for i, c := range f.Chains {
		v := m.chains[c.Name]
		if v == nil {
			v = &variants[Chain]{}
			m.chains[c.Name] = v
		}
		t.chain(c.Name, v)
		if same := v.add(c, n, sameChain, Chain.String); n > 0 && same != nil {
			f.Chains[i] = *same // thousands of fragments may have it: once in memory is enough
		}
		if len(v.all) == 0 {
			delete(m.chains, c.Name)
		}
	}
	for i := range f.Sets {
		s := &f.Sets[i]
		c := m.sets[s.Name]
		if c == nil {
			c = &setClaims{elements: make(map[Tuple]*claims, sizes[s.Name])}
			c.touched = make([]*claims, 0, sizes[s.Name])
			m.sets[s.Name] = c
		}
		t.set(s.Name, c)
		c.count(owner, s, n)
	}
}

func (t *touched) chain(name string, v *variants[Chain]) {
	if _, ok := t.chains[name]; !ok {
		t.chains[name] = clone(v.get())
	}
}

func (t *touched) set(name string, c *setClaims) {
	if _, ok := t.sets[name]; !ok {
		t.sets[name] = clone(c.declaration.get())
	}
}

func clone[T any](v *T) *T {
	if v == nil {
		return nil
	}
	c := *v
	return &c
}

// changes returns the ops for what differs from before.
func (m *Merge) changes(t *touched) []Op {
	d := newDelta(m.family, m.name)
	for name, before := range t.chains {
		now := m.chains[name].get()
		if now != nil && before != nil && now.Base != before.Base {
			return m.remake()
		}
		d.chain(now, before)
	}
	for name, before := range t.sets {
		c := m.sets[name]
		now := c.declaration.get()
		switch {
		case now == nil && before == nil:
			continue
		case now == nil:
			d.unset = append(d.unset, d.setOp(Del, KindSet, *before, nil))
			continue
		case before == nil:
			d.made = append(d.made, d.setOp(Add, KindSet, *now, nil))
		case !sameDeclaration(*now, *before):
			return m.remake()
		}
		d.addElems(*now, nil, nil, nil)
		e := &d.elems[len(d.elems)-1]
		e.grow(c.touched)
		for _, x := range c.touched {
			e.note(x.element, x.before)
		}
	}
	return d.sorted().ops()
}

// remake is the whole table anew, for a declaration that can't be changed in place.
func (m *Merge) remake() []Op {
	d := newDelta(m.family, m.name)
	return append([]Op{d.op(Del, KindTable)}, Diff(m.Table(), nil)...)
}

// grow makes room for what is new.
func (e *elems) grow(touched []*claims) {
	n := 0
	for _, x := range touched {
		if x.before == nil && x.element != nil {
			n++
		}
	}
	e.add = make([]Element, 0, n)
}

// sorted brings what was collected in random order into order of name.
func (d *delta) sorted() *delta {
	byName := func(a, b Op) int {
		if (a.Kind == KindSet) != (b.Kind == KindSet) {
			return int(a.Kind) - int(b.Kind)
		}
		return strings.Compare(a.Chain.Name+a.Set.Name, b.Chain.Name+b.Set.Name)
	}
	for _, list := range [][]Op{d.made, d.rules, d.base, d.flush, d.unset, d.gone} {
		slices.SortFunc(list, byName)
	}
	return d
}

// OwnerOf returns who wants what an op adds: the owner that got an element, or one of those that want a chain; "" when nobody does.
func (m *Merge) OwnerOf(op Op) string {
	if op.Kind == KindElements && len(op.Set.Elements) > 0 {
		if c := m.sets[op.Set.Name]; c != nil {
			if e := c.elements[elementKey(&op.Set.Elements[0])]; e != nil {
				return e.owner
			}
		}
		return ""
	}
	for _, owner := range m.Owners() {
		if f := m.fragments[owner]; op.Chain.Name != "" && f.Chain(op.Chain.Name) != nil {
			return owner
		}
	}
	return ""
}

// Element returns an element of a set or map of the union.
func (m *Merge) Element(set string, key Tuple) (Element, bool) {
	c := m.sets[set]
	if c == nil {
		return Element{}, false
	}
	e := c.elements[key].get()
	if e == nil {
		return Element{}, false
	}
	return *e, true
}

// Table returns the union in canonical form.
func (m *Merge) Table() Table {
	t := m.Unsorted()
	t.Sort()
	return t
}

// Unsorted returns the union in canonical form but for the elements of sets, which come in any order.
func (m *Merge) Unsorted() Table {
	t := Table{Family: m.family, Name: m.name}
	for _, v := range m.chains {
		if c := v.get(); c != nil {
			t.Chains = append(t.Chains, *c)
		}
	}
	for _, c := range m.sets {
		s := *c.declaration.get()
		s.Elements = make([]Element, 0, len(c.elements))
		for _, e := range c.elements {
			s.Elements = append(s.Elements, *e.element)
		}
		if len(s.Elements) == 0 {
			s.Elements = nil
		}
		t.Sets = append(t.Sets, s)
	}
	t.SortNames()
	return t
}
