package netstate

import (
	"cmp"
	"slices"
)

// Verb is what an Op does to its object.
type Verb uint8

// The verbs. Set changes an object in place; where the kernel can't, Diff makes a Del and an Add of it.
const (
	Add Verb = iota
	Set
	Del
)

// String is "add", "set" or "del".
func (v Verb) String() string { return [...]string{"add", "set", "del"}[v] }

// Op is one step that brings the kernel nearer to the wanted State. It prints as the commands that do it.
type Op struct {
	Verb   Verb
	Object Object // the wanted object for Add and Set, the found one for Del
	Old    Object // the found object, for Set only
}

// recreated is implemented by objects some of whose attributes are fixed at creation.
type recreated interface {
	// MustRecreate reports whether have can't be changed into the receiver in place.
	MustRecreate(have Object) bool
}

// diff is the work of one Diff.
type diff struct {
	want, have State
	early      []sortedOp      // deletions of links that must be made anew
	ops, dels  []sortedOp      //
	gone       map[string]bool // links deleted early, with all that lives on them
	flushed    map[string]bool // links whose neighbour entries the kernel drops, because their MAC changes
}

// sortedOp is an Op with its sort key, so that keys are made once.
type sortedOp struct {
	id ID
	op Op
}

// compare orders by kind, then key; a bridge comes before its ports.
func (s sortedOp) compare(t sortedOp) int {
	return cmp.Or(cmp.Compare(s.id.Kind, t.id.Kind), cmp.Compare(s.rank(), t.rank()), cmp.Compare(s.id.Key, t.id.Key))
}

func (s sortedOp) rank() int {
	if l, ok := s.op.Object.(Link); ok && l.Master != "" {
		return 1
	}
	return 0
}

// Diff returns the Ops that turn have into want, in an order the kernel accepts: first the links that must be made anew
// are deleted (everything on them goes with them), then additions and changes in order of kind, then deletions in reverse.
// Additions come before deletions, so a path that is replaced is never missing.
//
// Diff(s, s) is empty, and have.Apply(Diff(want, have)...) equals want.
func Diff(want, have State) []Op {
	d := diff{want: want, have: have, gone: map[string]bool{}, flushed: map[string]bool{}}
	d.remake()
	d.change()
	for id, h := range have.All() {
		if _, ok := want.Get(id); !ok && !d.gone[h.On()] {
			d.dels = append(d.dels, sortedOp{id, Op{Verb: Del, Object: h}})
		}
	}
	up := func(a, b sortedOp) int { return a.compare(b) }
	down := func(a, b sortedOp) int { return b.compare(a) }
	slices.SortFunc(d.early, down)
	slices.SortFunc(d.ops, up)
	slices.SortFunc(d.dels, down)
	all := make([]Op, 0, len(d.early)+len(d.ops)+len(d.dels))
	for _, s := range slices.Concat(d.early, d.ops, d.dels) {
		all = append(all, s.op)
	}
	return all
}

// remake finds what must be deleted and made again, and the links whose change costs them their neighbours.
func (d *diff) remake() {
	for id, w := range d.want.All() {
		h, ok := d.have.Get(id)
		if !ok {
			continue
		}
		if r, is := w.(recreated); is && r.MustRecreate(h) {
			d.early = append(d.early, sortedOp{id, Op{Verb: Del, Object: h}})
			if id.Kind == KindLink {
				d.gone[id.Key] = true
			}
			continue
		}
		if l, is := w.(Link); is {
			old, was := h.(Link)
			d.flushed[id.Key] = was && old.MAC != l.MAC
		}
	}
}

// change fills in the additions and changes.
func (d *diff) change() {
	remade := make(map[ID]bool, len(d.early))
	for _, e := range d.early {
		remade[e.id] = true
	}
	for id, w := range d.want.All() {
		h, ok := d.have.Get(id)
		switch {
		case !ok || remade[id] || d.gone[h.On()]:
			d.ops = append(d.ops, sortedOp{id, Op{Verb: Add, Object: w}})
		case !same(w, h):
			d.ops = append(d.ops, sortedOp{id, Op{Verb: Set, Object: w, Old: h}})
		case id.Kind == KindNeigh && d.flushed[h.On()]:
			d.ops = append(d.ops, sortedOp{id, Op{Verb: Add, Object: w}})
		}
	}
}

// Apply returns s after the Ops, as the kernel would have it: what lives on a deleted link goes with the link.
func (s State) Apply(ops ...Op) State {
	out := Union(s)
	for _, op := range ops {
		if op.Verb != Del {
			out.Add(op.Object)
			continue
		}
		out.Remove(IDOf(op.Object))
		if op.Object.Kind() == KindLink {
			out = out.Select(func(o Object) bool { return o.On() != op.Object.Key() })
		}
	}
	return out
}
