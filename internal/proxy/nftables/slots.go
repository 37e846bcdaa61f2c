package nftables

import (
	"net/netip"

	"weft/internal/api"
	"weft/internal/maglev"
	"weft/internal/proxy"
)

// A service's endpoints stand in slots, numbered elements of a map, of which a chain draws one at random. How many slots there are depends
// only roughly on the number of endpoints, so that a changed endpoint changes elements of a plain map: an element with a verdict would
// make the kernel look at all rules and verdicts of the table again, which costs milliseconds with ten thousand services.
//
// Each endpoint has the same number of slots. What is left over is empty, and who draws an empty slot draws again.

// draws is how often a chain draws before it takes one of the slots that are surely full. At least half of the slots are full, so less than
// one packet in 16 gets that far: no endpoint gets a twentieth more or less than another.
const draws = 4

// slots is the number of slots for that many endpoints: 4, 16, 32, 64 and so on.
func slots(endpoints int) int {
	switch {
	case endpoints <= 4:
		return 4
	case endpoints <= 16:
		return 16
	}
	n := 32
	for n < endpoints {
		n *= 2
	}
	return n
}

// surely is the number of slots that are full whenever a list with so many slots has an endpoint at all.
func surely(slots int) int {
	switch slots {
	case 4:
		return 3 // 3 endpoints have one slot each, fewer have all four
	case 16:
		return 9 // 9 endpoints have one slot each, 5 have 15
	}
	return slots/2 + 1
}

// full is the number of slots that so many endpoints fill evenly.
func full(endpoints int) int {
	if endpoints == 0 {
		return 0
	}
	return slots(endpoints) / endpoints * endpoints
}

// spreadOver bounds the places that the weights of a service's endpoints make of them.
const spreadOver = 256

// filling is what a list's slots hold.
type filling struct {
	slots  int              // see slots; with hashed: the size of the table
	hashed bool             // the client's address decides on the slot, else chance
	places []netip.AddrPort // the endpoints in the first slots, again and again
	full   int              // how many slots are full, the first ones
}

// at is the endpoint in a full slot.
func (f filling) at(slot int) netip.AddrPort { return f.places[slot%len(f.places)] }

// fill fills the slots of one of the service's lists.
func (b *builder) fill(endpoints []netip.AddrPort) filling {
	weights := proxy.Weights(b.s, endpoints)
	if b.s.Balance != api.Maglev || b.n.NoHash {
		places := proxy.Spread(endpoints, weights, spreadOver)
		return filling{slots: slots(len(places)), places: places, full: full(len(places))}
	}
	f := filling{slots: maglev.Size(len(endpoints)), hashed: true}
	table := maglev.Table(endpoints, weights, f.slots)
	f.full, f.places = len(table), make([]netip.AddrPort, len(table))
	for slot, i := range table {
		f.places[slot] = endpoints[i]
	}
	return f
}
