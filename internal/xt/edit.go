package xt

import "slices"

// A chain of ours with few changes is edited rule by rule; one with many is flushed and filled again in the same transaction.
// Deleting a rule makes iptables compare it with all of the chain, so the limit grows slowly with the chain.
const (
	editsMin   = 8
	editsShare = 50 // one edit for this many rules
)

// script is the edits that turn one list of lines into another.
type script struct {
	del []int // positions in have
	add []int // positions in want
}

// compare finds the lines only one of the lists has. It reports false when a line is there twice or the common lines changed
// their order: then editing is not worth it.
func compare(want, have []string) (script, bool) {
	at := make(map[string]int, len(have))
	for i, h := range have {
		if _, twice := at[h]; twice {
			return script{}, false
		}
		at[h] = i
	}
	var s script
	seen := make(map[string]bool, len(want))
	next := 0 // everything in have before this is matched or deleted
	for i, w := range want {
		if seen[w] {
			return script{}, false
		}
		seen[w] = true
		j, ok := at[w]
		switch {
		case !ok:
			s.add = append(s.add, i)
			continue
		case j < next:
			return script{}, false
		}
		for ; next < j; next++ {
			s.del = append(s.del, next)
		}
		next = j + 1
	}
	for ; next < len(have); next++ {
		s.del = append(s.del, next)
	}
	return s, true
}

// edit returns the ops that turn the lines of a chain into c: deletions first, then insertions in ascending order, so that every
// position is final when it's used. It reports false when the chain is better filled again.
func (d *differ) edit(c Chain, have []string) ([]Op, bool) {
	want := texts(c.Rules)
	if slices.Equal(want, have) {
		return nil, true
	}
	s, ok := compare(want, have)
	if !ok || len(s.del)+len(s.add) > editsMin+len(have)/editsShare {
		return nil, false
	}
	var ops []Op
	op := func(v Verb, pos int, r Rule) {
		ops = append(ops, Op{V6: d.v6, Table: d.table, Chain: c.Name, Verb: v, Pos: pos, Rule: r})
	}
	old := find(d.have, c.Name)
	for _, i := range s.del {
		op(Delete, 0, old.Rules[i])
	}
	n := len(have) - len(s.del)
	for _, i := range s.add {
		if i == n {
			op(Append, 0, c.Rules[i])
		} else {
			op(Insert, i+1, c.Rules[i])
		}
		n++
	}
	return ops, true
}

func find(all []Chain, name string) *Chain {
	i := slices.IndexFunc(all, func(c Chain) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}
