// Package netstate holds kernel network objects as values: links, addresses, neighbours, FDB entries, routes, rules,
// sysctls, and what user-space engines apply as the kernel applies routes (tunnels, listeners). A State is a set of them,
// Diff of two States is the list of Ops that turns the second into the first.
//
// Every object prints as the argument text of the ip(8), bridge(8) or sysctl(8) command that makes it, so one text is
// log line, golden file, dry run and documentation. Two objects are equal when they print the same text.
//
// Floor 1, values: no I/O, no clock.
package netstate

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Kind says what an object is. Objects are created in the order of the kinds and deleted in the reverse order.
type Kind uint8

// The kinds, in order of creation.
const (
	KindLink Kind = iota
	KindSysctl
	KindAddr
	KindNeigh
	KindFDB
	KindRoute
	KindRule
	KindTunnel
	KindListener
)

var kindNames = [...]string{"link", "sysctl", "addr", "neigh", "fdb", "route", "rule", "tunnel", "listener"}

// String is the word of the ip(8) or bridge(8) object: "link", "addr", "neigh", "fdb", "route", "rule", ...
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Object is one kernel object. Implementations are plain structs used as values.
type Object interface {
	// Kind says which table of the kernel the object lives in.
	Kind() Kind
	// Key is the object's identity within its kind: what the kernel refuses to hold twice.
	Key() string
	// String is the argument text of the command that makes the object; equal text means equal object.
	String() string
	// On is the link the object lives on and vanishes with, or "".
	On() string
}

// ID identifies an object in a State.
type ID struct {
	Kind Kind
	Key  string
}

// IDOf returns the object's ID.
func IDOf(o Object) ID { return ID{Kind: o.Kind(), Key: o.Key()} }

// State is a set of objects, at most one for each ID. The zero State is empty and may be read; Add needs New.
type State struct {
	objects map[ID]Object // with a base: those that are not in it or are others, nil in place of one that is gone
	base    map[ID]Object // shared with other States, so never changed
}

// New returns a State of the objects; of two with the same ID the later wins.
func New(objects ...Object) State {
	s := State{objects: make(map[ID]Object, len(objects))}
	s.Add(objects...)
	return s
}

// Add puts the objects into s, replacing those with the same ID.
func (s *State) Add(objects ...Object) {
	if s.objects == nil {
		s.objects = make(map[ID]Object, len(objects))
	}
	for _, o := range objects {
		s.objects[IDOf(o)] = o
	}
}

// Remove takes the object with the ID out of s.
func (s *State) Remove(id ID) {
	delete(s.objects, id)
	if _, ok := s.base[id]; ok {
		if s.objects == nil {
			s.objects = map[ID]Object{}
		}
		s.objects[id] = nil
	}
}

// Get returns the object with the ID.
func (s State) Get(id ID) (Object, bool) {
	if o, ok := s.objects[id]; ok {
		return o, o != nil
	}
	o, ok := s.base[id]
	return o, ok
}

// Len is the number of objects.
func (s State) Len() int {
	n := len(s.objects)
	if s.base == nil {
		return n
	}
	n = len(s.base)
	for id, o := range s.objects {
		_, was := s.base[id]
		switch {
		case o == nil:
			n--
		case !was:
			n++
		}
	}
	return n
}

// Union returns a State with the objects of all; of two with the same ID the later wins.
func Union(states ...State) State {
	n := 0
	for _, s := range states {
		n += s.Len()
	}
	u := State{objects: make(map[ID]Object, n)}
	for _, s := range states {
		maps.Insert(u.objects, s.All())
	}
	return u
}

// Objects returns the objects in order of kind, then key.
func (s State) Objects() []Object {
	ids := make([]ID, 0, len(s.objects)+len(s.base))
	for id := range s.All() {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareID)
	out := make([]Object, len(ids))
	for i, id := range ids {
		out[i], _ = s.Get(id)
	}
	return out
}

// All yields the objects with their IDs in no order, which is much cheaper than Objects for large States.
func (s State) All() iter.Seq2[ID, Object] {
	if s.base == nil {
		return maps.All(s.objects)
	}
	return s.allOfBoth
}

// Select returns the State of the objects that keep says yes to.
func (s State) Select(keep func(Object) bool) State {
	if s.base != nil && !s.any(func(o Object) bool { return !keep(o) }) {
		return State{base: s.base, objects: maps.Clone(s.objects)}
	}
	out := New()
	for id, o := range s.All() {
		if keep(o) {
			out.objects[id] = o
		}
	}
	return out
}

// Of returns the objects of type T in order of key.
func Of[T Object](s State) []T {
	var out []T
	for _, o := range s.Objects() {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// Equal reports whether a and b hold the same objects.
func Equal(a, b State) bool {
	if a.Len() != b.Len() {
		return false
	}
	for id, o := range a.All() {
		p, ok := b.Get(id)
		if !ok || !same(o, p) {
			return false
		}
	}
	return true
}

// String prints one object a line, "kind text", in order.
func (s State) String() string {
	var b strings.Builder
	for _, o := range s.Objects() {
		b.WriteString(o.Kind().String())
		b.WriteByte(' ')
		b.WriteString(o.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// same reports whether a and b are equal objects, without printing them where that can be avoided.
func same(a, b Object) bool {
	switch a := a.(type) {
	case Route:
		if b, ok := b.(Route); ok && a == b {
			return true
		}
	case Neigh:
		if b, ok := b.(Neigh); ok {
			return a == b
		}
	case FDB:
		if b, ok := b.(FDB); ok {
			return a == b
		}
	}
	return a.String() == b.String()
}

func compareID(a, b ID) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key)) }
