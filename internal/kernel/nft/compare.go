package nft

import (
	"maps"
	"slices"

	"weft/internal/nft"
)

// Compare returns the ops that turn the table in the kernel into the wanted one: nft.Diff of what is wanted and of what Read returns, of large
// sets for less. It asks for the elements that the plan has in them, and for others only where the kernel says that there are any.
//
// The wanted elements may come in any order; Compare may bring them in canonical order.
//
// What others change in a large set meanwhile may be missed; Watch tells of it.
func (c *Conn) Compare(want *nft.Table) ([]nft.Op, error) {
	p := planReader{c: c, want: want, differing: map[string][]nft.Element{}}
	have, err := c.read(want.Family, want.Name, p.elements)
	if err != nil {
		return nil, err
	}
	if have == nil {
		return nft.Diff(*want, nil), nil
	}
	some := *want
	some.Sets = slices.Clone(want.Sets)
	for i := range some.Sets {
		w, h := &some.Sets[i], have.Set(some.Sets[i].Name)
		if h == nil {
			continue
		}
		if list, ok := p.differing[w.Name]; ok {
			w.Elements = list
		}
		if !nft.SameList(w.Elements, h.Elements) {
			w.Sort()
			h.Sort()
		}
	}
	ops := nft.Diff(some, have)
	if len(ops) > 0 && ops[0].Kind == nft.KindTable { // it is made anew, with all that is wanted
		return nft.Diff(*want, have), nil
	}
	return ops, nil
}

// planReader reads the sets of a table of which there is a plan.
type planReader struct {
	c    *Conn
	want *nft.Table
	read []pair // so far
	// differing are the wanted elements that a set does not have as wanted; what is read of it are then the others that it has.
	differing map[string][]nft.Element
}

// pair is a set as planned and as it is.
type pair struct{ want, have *nft.Set }

func (p *planReader) elements(s *nft.Set) (out []nft.Element, err error) {
	want, ok := p.want.Set(s.Name), false
	delete(p.differing, s.Name)
	if want != nil && !want.Interval && nft.SameDeclaration(*want, *s) {
		if out, ok, err = p.byKey(want, s); err != nil {
			return nil, err
		}
	}
	if !ok {
		out, err = p.c.elements(p.want.Family, p.want.Name, s)
	}
	if want != nil {
		have := *s
		have.Elements = out
		p.read = append(p.read, pair{want, &have})
	}
	return out, err
}

// byKey reads a large set by the plan's keys. ok is false when it has to be read as a whole.
func (p *planReader) byKey(want, s *nft.Set) (out []nft.Element, ok bool, err error) {
	n, _, known, err := p.c.count(p.want.Family, p.want.Name, s)
	if err != nil || !known || n == 0 || max(n, len(want.Elements)) < p.c.lookupFrom {
		return nil, false, err
	}
	l, err := p.c.lookUp(p.want.Family, p.want.Name, want)
	if err != nil {
		return nil, false, err
	}
	there := len(want.Elements) - len(l.missing)
	var more []nft.Element
	if n > there && numbered(s) {
		if more, err = p.beyond(want, n-there); err != nil {
			return nil, false, err
		}
	}
	n, others, _, err := p.c.count(p.want.Family, p.want.Name, s)
	if err != nil || n != there+len(more) || others {
		return nil, false, err
	}
	if len(l.missing)+len(l.other)+len(more) == 0 {
		return want.Elements, true, nil
	}
	p.differing[s.Name], out = l.differing()
	return append(out, more...), true, nil
}

// Sets whose keys end in a number hold lists, with elements 0, 1, 2 and so on. What is too much in them are nearly always ends of lists that
// were longer, and lists of keys that another set still has and the plan no longer: so much a service that went while nobody looked leaves
// behind. To ask for those costs little where to read the whole set would cost seconds.

// numbered reports whether a set holds such lists.
func numbered(s *nft.Set) bool { return len(s.Key) > 1 && s.Key[len(s.Key)-1] == nft.NumGen }

// numberLen is the length of the number at the end of a key.
const numberLen = 4

// beyond returns elements of lists that the plan does not have, so many at most.
func (p *planReader) beyond(want *nft.Set, most int) (out []nft.Element, err error) {
	next := map[nft.Tuple]uint32{} // behind the last number of each list that is planned
	for i := range want.Elements {
		key := want.Elements[i].Key
		list, number := key[:len(key)-numberLen], native.Uint32([]byte(key[len(key)-numberLen:]))
		next[list] = max(next[list], number+1)
	}
	gone := map[nft.Tuple]uint32{}
	for _, x := range p.read {
		if !slices.Equal(x.have.Key, want.Key[:len(want.Key)-1]) || nft.SameList(x.want.Elements, x.have.Elements) {
			continue
		}
		for _, e := range x.have.Elements {
			if _, planned := next[e.Key]; !planned {
				gone[e.Key] = 0
			}
		}
	}
	for _, lists := range []map[nft.Tuple]uint32{gone, next} {
		for len(lists) > 0 && len(out) < most {
			found, err := p.ask(want, lists)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
			lists = map[nft.Tuple]uint32{}
			for _, e := range found {
				list := e.Key[:len(e.Key)-numberLen]
				lists[list] = native.Uint32([]byte(e.Key[len(list):])) + 1
			}
		}
	}
	return out, nil
}

// ask returns the elements of lists, one of each, that are there.
func (p *planReader) ask(want *nft.Set, lists map[nft.Tuple]uint32) ([]nft.Element, error) {
	s := *want
	s.Elements = make([]nft.Element, 0, len(lists))
	for _, list := range slices.Sorted(maps.Keys(lists)) {
		key := nft.TupleBuilder(list).Num(lists[list]).Tuple()
		s.Elements = append(s.Elements, nft.Element{Key: key})
	}
	l, err := p.c.lookUp(p.want.Family, p.want.Name, &s)
	if err != nil {
		return nil, err
	}
	return l.found(), nil
}
