package netstate

import "slices"

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

// Op is one step that brings the kernel nearer to the wanted State.
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

// Diff returns the Ops that turn have into want, in an order the kernel accepts: first the links that must be made anew
// are deleted (everything on them goes with them), then additions and changes in order of kind, then deletions in reverse.
// Additions come before deletions, so a path that is replaced is never missing.
//
// Diff(s, s) is empty, and have.Apply(Diff(want, have)...) equals want.
func Diff(want, have State) []Op {
	var early, ops, dels []Op
	remade := map[ID]bool{}
	gone := map[string]bool{} // links deleted early, with all that lives on them
	for _, w := range want.Objects() {
		h, ok := have.objects[IDOf(w)]
		if r, is := w.(recreated); ok && is && r.MustRecreate(h) {
			early = append(early, Op{Verb: Del, Object: h})
			ops = append(ops, Op{Verb: Add, Object: w})
			remade[IDOf(w)] = true
			if h.Kind() == KindLink {
				gone[h.Key()] = true
			}
		}
	}
	for id, w := range want.objects {
		if remade[id] {
			continue
		}
		h, ok := have.objects[id]
		switch {
		case !ok || gone[h.On()]:
			ops = append(ops, Op{Verb: Add, Object: w})
		case w.String() != h.String():
			ops = append(ops, Op{Verb: Set, Object: w, Old: h})
		}
	}
	for id, h := range have.objects {
		if _, ok := want.objects[id]; !ok && !gone[h.On()] {
			dels = append(dels, Op{Verb: Del, Object: h})
		}
	}
	byObject := func(a, b Op) int { return compare(a.Object, b.Object) }
	slices.SortFunc(early, func(a, b Op) int { return byObject(b, a) })
	slices.SortFunc(ops, byObject)
	slices.SortFunc(dels, func(a, b Op) int { return byObject(b, a) })
	return slices.Concat(early, ops, dels)
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
