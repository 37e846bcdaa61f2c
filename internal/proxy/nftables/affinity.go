package nftables

import (
	"strings"

	"weft/internal/nft"
)

// What session affinity remembers is the kernel's state: rules add to it, and it times out. A plan that takes an endpoint from a
// service must be followed by forgetting who was sent there:
//
//	if nftables.Sticky(ops) {
//		for _, s := range nftables.Remembered() {
//			conn.Forget(nft.INet, nft.TableName, s, nftables.Stale(s, merge.Element))
//		}
//	}

// Remembered are the maps that hold the endpoints of clients.
func Remembered() []nft.Set {
	var out []nft.Set
	for _, f := range families {
		for _, local := range []bool{false, true} {
			out = append(out, list{family: f, local: local}.recent())
		}
	}
	return out
}

// Sticky reports whether the ops may take endpoints from services with session affinity.
func Sticky(ops []nft.Op) bool {
	for _, o := range ops {
		if o.Verb != nft.Add && (o.Kind == nft.KindElements || o.Kind == nft.KindSet) && strings.Contains(o.Set.Name, "picks") {
			return true
		}
	}
	return false
}

// Stale returns a function that reports whether an element of a remembered map leads to an endpoint that its service no longer has.
// lookup finds an element of the plan.
func Stale(remembered nft.Set, lookup func(set string, key nft.Tuple) (nft.Element, bool)) func(nft.Element) bool {
	var of list
	for _, f := range families {
		for _, local := range []bool{false, true} {
			if l := (list{family: f, local: local}); l.recent().Name == remembered.Name {
				of = l
			}
		}
	}
	return func(e nft.Element) bool {
		v, to := e.Key.Values(remembered.Key), e.Data.Values(remembered.Data)
		if v == nil || to == nil {
			return true
		}
		prefix := endpointName(uint8(v[2].Num), to[0].Addr, uint16(to[1].Num))
		addr := of.addr.Len()
		for _, port := range []bool{false, true} {
			l, key := of, e.Key[addr:]
			if l.port = port; port {
				key = key[addr:]
			}
			if leads(l.picks().Name, key, prefix, lookup) {
				return false
			}
		}
		return true
	}
}

// leads reports whether one of the numbered elements behind the key leads to a chain whose name begins so.
func leads(set string, key nft.Tuple, prefix string, lookup func(set string, key nft.Tuple) (nft.Element, bool)) bool {
	for k := uint32(0); ; k++ {
		e, ok := lookup(set, key+nft.TupleBuilder(nil).Num(k).Tuple())
		if !ok {
			return false
		}
		if strings.HasPrefix(e.Verdict.Chain, prefix) {
			return true
		}
	}
}
