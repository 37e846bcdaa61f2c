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
