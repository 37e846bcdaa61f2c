package agent

import (
	"iter"
	"slices"

	"weft/internal/overlay/edge"
)

// partSize is how many members a part of a memberList has at first; it never has twice as many.
const partSize = 64

// memberList is a sorted list of members that is never changed: a change makes another one, which shares nearly all memory with it.
type memberList struct {
	parts [][]edge.Member // none is empty
	n     int
}

// listOf is the list of members that are sorted and compact already.
func listOf(sorted []edge.Member) memberList {
	return memberList{parts: slices.Collect(slices.Chunk(slices.Clip(sorted), partSize)), n: len(sorted)}
}

// all yields the members in order.
func (l memberList) all() iter.Seq[edge.Member] {
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

// find returns where the member is, or would be.
func (l memberList) find(m edge.Member) (part, at int, there bool) {
	part, there = slices.BinarySearchFunc(l.parts, m, func(p []edge.Member, m edge.Member) int { return compareMembers(p[0], m) })
	if there || part == 0 {
		return part, 0, there
	}
	part--
	at, there = slices.BinarySearchFunc(l.parts[part], m, compareMembers)
	return part, at, there
}

func (l memberList) has(m edge.Member) bool {
	_, _, there := l.find(m)
	return there
}

// with is the list with the member too.
func (l memberList) with(m edge.Member) memberList {
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
func (l memberList) without(m edge.Member) memberList {
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
func (l memberList) replace(i, more int, parts ...[]edge.Member) memberList {
	return memberList{parts: slices.Concat(l.parts[:i], parts, l.parts[i+1:]), n: l.n + more}
}

// differences calls gone and fresh for what is in one list only. What both share costs nothing.
func differences(before, after memberList, gone, fresh func(edge.Member)) {
	var a, b []edge.Member
	x, y := before.parts, after.parts
	for {
		for len(a)+len(b) == 0 && len(x) > 0 && len(y) > 0 && &x[0][0] == &y[0][0] && len(x[0]) == len(y[0]) {
			x, y = x[1:], y[1:]
		}
		if len(a) == 0 && len(x) > 0 {
			a, x = x[0], x[1:]
		}
		if len(b) == 0 && len(y) > 0 {
			b, y = y[0], y[1:]
		}
		c := 0
		switch {
		case len(a)+len(b) == 0:
			return
		case len(a) == 0:
			c = 1
		case len(b) == 0:
			c = -1
		default:
			c = compareMembers(a[0], b[0])
		}
		if c < 0 {
			gone(a[0])
		} else if c > 0 {
			fresh(b[0])
		}
		if c <= 0 {
			a = a[1:]
		}
		if c >= 0 {
			b = b[1:]
		}
	}
}
