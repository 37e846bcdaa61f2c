package guard

import (
	"iter"
	"slices"

	"weft/internal/overlay/edge"
)

// partSize is how many members a part of Members has at first; it never has twice as many.
const partSize = 64

// Members is a sorted list of members that is never changed: a change makes another one, which shares nearly all memory with it.
type Members struct {
	parts [][]edge.Member // none is empty
	n     int
}

// listOf is the list of members that are sorted and compact already.
func listOf(sorted []edge.Member) Members {
	return Members{parts: slices.Collect(slices.Chunk(slices.Clip(sorted), partSize)), n: len(sorted)}
}

// All yields the members in order.
func (l Members) All() iter.Seq[edge.Member] {
	return func(yield func(edge.Member) bool) {
		for _, p := range l.parts {
			for _, m := range p {
				if !yield(m) {
					return
				}
			}
		}
	}
}

// Len is how many members there are.
func (l Members) Len() int { return l.n }

// find returns where the member is, or would be.
func (l Members) find(m edge.Member) (part, at int, there bool) {
	part, there = slices.BinarySearchFunc(l.parts, m, func(p []edge.Member, m edge.Member) int { return compareMembers(p[0], m) })
	if there || part == 0 {
		return part, 0, there
	}
	part--
	at, there = slices.BinarySearchFunc(l.parts[part], m, compareMembers)
	return part, at, there
}

func (l Members) has(m edge.Member) bool {
	_, _, there := l.find(m)
	return there
}

// with is the list with the member too.
func (l Members) with(m edge.Member) Members {
	i, at, there := l.find(m)
	if there {
		return l
	}
	if len(l.parts) == 0 {
		return listOf([]edge.Member{m})
	}
	p := make([]edge.Member, 0, len(l.parts[i])+1)
	p = append(append(append(p, l.parts[i][:at]...), m), l.parts[i][at:]...)
	if len(p) < 2*partSize {
		return l.replace(i, 1, p)
	}
	return l.replace(i, 1, p[:partSize:partSize], p[partSize:])
}

// without is the list without the member.
func (l Members) without(m edge.Member) Members {
	i, at, there := l.find(m)
	switch {
	case !there:
		return l
	case len(l.parts[i]) == 1:
		return l.replace(i, -1)
	}
	return l.replace(i, -1, slices.Delete(slices.Clone(l.parts[i]), at, at+1))
}

// replace puts others in the place of a part.
func (l Members) replace(i, more int, parts ...[]edge.Member) Members {
	return Members{parts: slices.Concat(l.parts[:i], parts, l.parts[i+1:]), n: l.n + more}
}

// Differences calls gone and fresh for what is in one list only. What both share costs nothing.
func Differences(before, after Members, gone, fresh func(edge.Member)) {
	a, b := cursor{rest: before.parts}, cursor{rest: after.parts}
	for {
		for len(a.part)+len(b.part) == 0 && samePart(a.rest, b.rest) {
			a.rest, b.rest = a.rest[1:], b.rest[1:]
		}
		x, y := a.peek(), b.peek()
		switch {
		case x == nil && y == nil:
			return
		case y == nil || x != nil && compareMembers(*x, *y) < 0:
			gone(*x)
			a.next()
		case x == nil || compareMembers(*x, *y) > 0:
			fresh(*y)
			b.next()
		default:
			a.next()
			b.next()
		}
	}
}

// samePart reports whether both begin with the very same part.
func samePart(a, b [][]edge.Member) bool {
	return len(a) > 0 && len(b) > 0 && &a[0][0] == &b[0][0] && len(a[0]) == len(b[0])
}

// cursor goes through Members.
type cursor struct {
	part []edge.Member
	rest [][]edge.Member
}

// peek is the next member, nil at the end.
func (c *cursor) peek() *edge.Member {
	if len(c.part) == 0 {
		if len(c.rest) == 0 {
			return nil
		}
		c.part, c.rest = c.rest[0], c.rest[1:]
	}
	return &c.part[0]
}

func (c *cursor) next() { c.part = c.part[1:] }
