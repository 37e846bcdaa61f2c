package rules

import (
	"net/netip"
	"slices"

	"weft/internal/agent/guard"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// memberPlan plans the elements of the edge check's sets. They are the bulk of a large network's table and simple: so they are not in the
// union of fragments.
type memberPlan struct {
	declared []string      // the sets there are, sorted
	list     guard.Members // whose elements they have
	peers    map[[16]byte]uint32
}

// update returns the ops that turn the elements of the plan before into those for the guard, what is new first. The ops for the rules make and
// delete the sets. anew says that the table begins empty.
func (p *memberPlan) update(rules nft.Table, list guard.Members, anew bool) []nft.Op {
	if declared := setNames(rules); anew || !slices.Equal(declared, p.declared) {
		return p.whole(declared, list, anew)
	}
	var gone, fresh elements
	touched := map[netip.Addr]uint32{} // how many members an outer address had
	note := func(m edge.Member, more int32, to *elements) {
		to.put(edge.Elements(m).Sets[0])
		if _, ok := touched[m.Outer]; !ok {
			touched[m.Outer] = p.count(m.Outer, 0)
		}
		p.count(m.Outer, more)
	}
	guard.Differences(p.list, list, func(m edge.Member) { note(m, -1, &gone) }, func(m edge.Member) { note(m, 1, &fresh) })
	for outer, before := range touched {
		switch now := p.count(outer, 0); {
		case before == 0 && now > 0:
			fresh.put(edge.Outer(outer))
		case before > 0 && now == 0:
			gone.put(edge.Outer(outer))
		}
	}
	p.list = list
	return append(fresh.ops(nft.Add, p.declared), gone.ops(nft.Del, p.declared)...)
}

// whole plans all of them, for other sets than before.
func (p *memberPlan) whole(declared []string, list guard.Members, anew bool) []nft.Op {
	var before, after elements
	if !anew {
		before.sets = sets(p.declared, p.list)
		before.sets = slices.DeleteFunc(before.sets, func(s nft.Set) bool { return !slices.Contains(declared, s.Name) })
	}
	after.sets = sets(declared, list)
	old := nft.Table{Family: nft.INet, Name: nft.TableName, Sets: before.sets}
	for _, s := range after.sets {
		if old.Set(s.Name) == nil {
			s.Elements = nil
			old.Sets = append(old.Sets, s)
		}
	}
	now := nft.Table{Family: nft.INet, Name: nft.TableName, Sets: slices.Clone(after.sets)}
	for _, s := range before.sets {
		if now.Set(s.Name) == nil {
			s.Elements = nil
			now.Sets = append(now.Sets, s)
		}
	}
	old.Sort()
	now.Sort()
	p.declared, p.list, p.peers = declared, list, make(map[[16]byte]uint32, list.Len())
	for m := range list.All() {
		p.count(m.Outer, 1)
	}
	return nft.Diff(now, &old)
}

// count counts the members of an outer address and returns how many it has now.
func (p *memberPlan) count(outer netip.Addr, more int32) uint32 {
	if p.peers == nil {
		p.peers = map[[16]byte]uint32{}
	}
	key := outer.As16()
	n := p.peers[key] + uint32(more)
	if n == 0 {
		delete(p.peers, key)
	} else if more != 0 {
		p.peers[key] = n
	}
	return n
}

// fill puts the elements into the table's sets, in any order.
func (p *memberPlan) fill(t *nft.Table) {
	for _, s := range sets(p.declared, p.list) {
		if to := t.Set(s.Name); to != nil {
			to.Elements = s.Elements
		}
	}
}

// sets are the declared ones with the members' elements.
func sets(declared []string, list guard.Members) []nft.Set {
	return slices.DeleteFunc(edge.Sets(list.All()), func(s nft.Set) bool { return !slices.Contains(declared, s.Name) })
}

func setNames(t nft.Table) []string {
	var out []string
	for _, s := range t.Sets {
		if !s.Dynamic {
			out = append(out, s.Name)
		}
	}
	slices.Sort(out)
	return out
}

// elements are those of several sets.
type elements struct{ sets []nft.Set }

func (e *elements) put(s nft.Set) {
	i := slices.IndexFunc(e.sets, func(x nft.Set) bool { return x.Name == s.Name })
	if i < 0 {
		e.sets = append(e.sets, s)
		return
	}
	e.sets[i].Elements = append(e.sets[i].Elements, s.Elements...)
}

func (e *elements) ops(verb nft.Verb, declared []string) (ops []nft.Op) {
	for _, s := range e.sets {
		if slices.Contains(declared, s.Name) {
			ops = append(ops, nft.Op{Verb: verb, Kind: nft.KindElements, Family: nft.INet, Table: nft.TableName, Set: s})
		}
	}
	return ops
}
