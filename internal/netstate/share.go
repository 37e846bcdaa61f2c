package netstate

// Freeze returns a State of the same objects that others, made of it by Select and Like, share memory with. s itself may not be changed
// any more.
func (s State) Freeze() State {
	if s.base != nil {
		s = Union(s)
	}
	return State{base: s.objects, objects: map[ID]Object{}}
}

// Like returns a State of the objects of s, which shares the memory of those that are in a frozen one too.
func (s State) Like(frozen State) State {
	if frozen.base == nil || 2*s.Len() < len(frozen.base) {
		return Union(s)
	}
	out := State{base: frozen.base, objects: map[ID]Object{}}
	for id, o := range frozen.base {
		if have, ok := s.Get(id); !ok {
			out.objects[id] = nil
		} else if !same(have, o) {
			out.objects[id] = have
		}
	}
	for id, o := range s.All() {
		if _, ok := frozen.base[id]; !ok {
			out.objects[id] = o
		}
	}
	return out
}

// allOfBoth yields the objects of a State with a base.
func (s State) allOfBoth(yield func(ID, Object) bool) {
	for id, o := range s.base {
		if _, other := s.objects[id]; !other && !yield(id, o) {
			return
		}
	}
	for id, o := range s.objects {
		if o != nil && !yield(id, o) {
			return
		}
	}
}

func (s State) any(is func(Object) bool) bool {
	for _, o := range s.All() {
		if is(o) {
			return true
		}
	}
	return false
}
