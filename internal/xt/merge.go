package xt

import (
	"maps"
	"slices"
)

// Merge is the union of the rulesets of several owners, kept so that the change of one costs that one. The zero Merge is not ready for
// use: NewMerge makes one.
type Merge struct {
	parts  map[string]Ruleset
	claims map[chainID]int // how many owners have rules in a chain
}

type chainID struct {
	v6           bool
	table, chain string
}

// NewMerge returns the empty union.
func NewMerge() *Merge { return &Merge{parts: map[string]Ruleset{}, claims: map[chainID]int{}} }

// Owners returns the names of the owners that want something, sorted.
func (m *Merge) Owners() []string { return slices.Sorted(maps.Keys(m.parts)) }

// Ruleset returns the union, in the order of the owners' names.
func (m *Merge) Ruleset() Ruleset {
	all := make([]Ruleset, 0, len(m.parts))
	for _, owner := range m.Owners() {
		all = append(all, m.parts[owner])
	}
	return Union(all...)
}

// Update replaces the parts of owners; an empty one removes its owner. It returns the ops that bring rules which are the union before to the
// union after. ok is false when that can't be told from these parts alone, because of rules in chains that are not ours, or in one
// that others have rules in and whose order counts: then the whole must be compared. The parts may not be changed afterwards.
func (m *Merge) Update(parts map[string]Ruleset) (ops []Op, ok bool) {
	var before, after []Ruleset
	ok = true
	for _, owner := range slices.Sorted(maps.Keys(parts)) {
		old, now := m.parts[owner], parts[owner]
		before, after = append(before, old), append(after, now)
		ok = m.count(old, -1) && ok
		ok = m.count(now, 1) && ok
		if m.parts[owner] = now; len(now.V4)+len(now.V6) == 0 {
			delete(m.parts, owner)
		}
	}
	ok = ok && m.alone(before) && m.alone(after)
	if !ok {
		return nil, false
	}
	have, want := Union(before...), Union(after...)
	keepUnordered(&have, want)
	keepUnordered(&want, have)
	return diff(want, have, true), true
}

// count adds or removes the claims of a part. It reports whether all its chains are ours.
func (m *Merge) count(part Ruleset, n int) bool {
	ours := true
	each(part, func(id chainID, c *Chain) {
		if m.claims[id] += n; m.claims[id] == 0 {
			delete(m.claims, id)
		}
		ours = ours && Owned(c.Name)
	})
	return ours
}

// alone reports whether the parts are the only ones with rules in their chains, but for unordered ones.
func (m *Merge) alone(parts []Ruleset) bool {
	ok := true
	for _, p := range parts {
		each(p, func(id chainID, c *Chain) { ok = ok && (c.Unordered || m.claims[id] <= 1) })
	}
	return ok
}

// keepUnordered adds to a part the unordered chains that the other has: they stay, as others have rules in them.
func keepUnordered(to *Ruleset, from Ruleset) {
	each(from, func(id chainID, c *Chain) {
		if t := to.Family(id.v6); c.Unordered && t.Chain(id.table, id.chain) == nil {
			t.Add(id.table, id.chain)
			t.Chain(id.table, id.chain).Unordered = true
		}
	})
}

func each(r Ruleset, f func(chainID, *Chain)) {
	for _, v6 := range []bool{false, true} {
		for _, t := range *r.Family(v6) {
			for i := range t.Chains {
				f(chainID{v6, t.Name, t.Chains[i].Name}, &t.Chains[i])
			}
		}
	}
}
