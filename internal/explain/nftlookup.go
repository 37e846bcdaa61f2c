package explain

import "weft/internal/nft"

// lookup finds the element for the key made of the packet's fields; random is the value of a random number in it.
func (e *nftWalk) lookup(set string, key []nft.Expr, random uint32) (nft.Element, bool) {
	m := e.t.Table.Set(set)
	if m == nil {
		return nft.Element{}, false
	}
	var b nft.TupleBuilder
	for _, x := range key {
		var ok bool
		if b, ok = e.appendField(b, x, random); !ok {
			return nft.Element{}, false
		}
	}
	want := b.Tuple()
	for _, el := range m.Elements {
		if el.Key == want || el.KeyEnd != "" && inRange(m.Key, want, el) {
			return el, true
		}
	}
	return nft.Element{}, false
}

// inRange compares component by component, as the kernel does for concatenations of ranges.
func inRange(types []nft.Type, want nft.Tuple, el nft.Element) bool {
	if !want.Fits(types) || !el.Key.Fits(types) || !el.KeyEnd.Fits(types) {
		return false
	}
	at := 0
	for _, t := range types {
		n := (t.Len() + 3) &^ 3
		x := want[at : at+n]
		if x < el.Key[at:at+n] || x > el.KeyEnd[at:at+n] {
			return false
		}
		at += n
	}
	return true
}

// draws is how many random numbers there may be in a key, 1 for a key without one.
func draws(key []nft.Expr) uint32 {
	n := uint32(1)
	for _, x := range key {
		if x.Field == nft.Random {
			n = max(n, x.Mod)
		}
	}
	return n
}

// drawn goes on in one of the chains that a verdict map has for a random number: each is an alternative. It returns how the chains end; found is
// false when the map has none.
func (e *nftWalk) drawn(m nft.VMap, text string, depth int) (end nft.VerdictKind, found bool) {
	var all [][]Outcome
	seen := map[nft.Verdict]bool{}
	for n := range min(draws(m.Key), maxChoices) {
		el, ok := e.lookup(m.Map, m.Key, n)
		next := e.t.Table.Chain(el.Verdict.Chain)
		if !ok || next == nil || seen[el.Verdict] {
			continue
		}
		seen[el.Verdict] = true
		sub := nftWalk{t: e.t, p: e.p}
		end = sub.chain(*next, depth+1)
		e.natted = e.natted || sub.natted
		why := Outcome{Action: Jump, Chain: next.Name, Rule: text + " {" + e.elementText(m.Map, el) + "}"}
		all = append(all, append([]Outcome{why}, sub.out...))
	}
	switch len(all) {
	case 0:
		return nft.Continue, false
	case 1:
		e.out = append(e.out, all[0]...)
		for _, o := range all[0] {
			e.p = apply(e.p, o)
		}
	default:
		o := Outcome{Action: OneOf, Alternatives: all}
		e.out, e.p = append(e.out, o), apply(e.p, o)
	}
	return end, true
}
