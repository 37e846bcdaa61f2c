// Package maglev is consistent hashing of clients to endpoints: the lookup table of "Maglev: A Fast and Reliable Software Network Load
// Balancer" (Eisenbud et al., NSDI 2016, section 3.4), and the hash of the client's address as the kernel computes it. All proxy modes and
// explain use it, so that they agree on the endpoint of a client, on every node.
//
// Floor 1, values: no I/O, no clock.
package maglev

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Seed is the seed of the client's hash. A change would move the clients of all services.
const Seed = 0x77656674

// The sizes of tables: primes, as every step through a table must come by all of its slots.
const (
	small  = 1021
	medium = 8191
	large  = 65521
)

// perEndpoint is how many slots there are at least for an endpoint. One has at most one slot more than another, so it gets at most a
// sixteenth more clients.
const perEndpoint = 16

// Size is the number of slots of the table for so many endpoints: 1021 up to 63, 8191 up to 511, 65521 for more. A table of another size is
// another table: that one endpoint more moves most clients.
func Size(endpoints int) int {
	switch {
	case endpoints*perEndpoint <= small:
		return small
	case endpoints*perEndpoint <= medium:
		return medium
	}
	return large
}

// Table returns for each of the size slots which of the endpoints it belongs to. Endpoints take turns in choosing slots, each in an order of
// its own that its address and port alone decide; so an endpoint that comes or goes changes few slots of the others. One with weight w
// gets w turns where one with weight 1 gets one; nil weights are all equal, and 0 counts as 1. The table of no endpoint is nil.
func Table(endpoints []netip.AddrPort, weights []uint8, size int) []uint16 {
	if len(endpoints) == 0 || size <= 0 {
		return nil
	}
	t := make([]uint16, size)
	taken := make([]bool, size)
	walks := make([]walk, len(endpoints))
	heaviest := 1
	for i, e := range endpoints {
		walks[i] = newWalk(e, size)
		if weights != nil {
			walks[i].weight = max(1, int(weights[i]))
		}
		heaviest = max(heaviest, walks[i].weight)
	}
	for left := size; ; {
		for i := range walks {
			w := &walks[i]
			if w.credit += w.weight; w.credit < heaviest {
				continue
			}
			w.credit -= heaviest
			slot := w.next(taken)
			taken[slot], t[slot] = true, uint16(i)
			if left--; left == 0 {
				return t
			}
		}
	}
}

// walk is an endpoint's way through the slots.
type walk struct {
	at, step, size int
	weight, credit int
}

func newWalk(e netip.AddrPort, size int) walk {
	a := e.Addr().As16()
	key := binary.BigEndian.AppendUint16(a[:], e.Port())
	offset, step := JHash(key, 1), JHash(key, 2)
	w := walk{at: int(offset % uint32(size)), step: 1, size: size, weight: 1}
	if size > 1 {
		w.step = 1 + int(step%uint32(size-1))
	}
	return w
}

// next is the first free slot on the way.
func (w *walk) next(taken []bool) int {
	for {
		slot := w.at
		w.at = (w.at + w.step) % w.size
		if !taken[slot] {
			return slot
		}
	}
}

// Slot is the client's slot of a table of that size, as the kernel finds it with "jhash ip saddr mod SIZE seed SEED".
func Slot(client netip.Addr, size int, seed uint32) uint32 {
	h := JHash(client.AsSlice(), seed)
	hi, _ := bits.Mul32(h, uint32(size)) // reciprocal_scale of linux/kernel.h
	return hi
}

// Family returns the endpoints of one family with their weights; weights may be nil.
func Family(endpoints []netip.AddrPort, weights []uint8, v6 bool) (list []netip.AddrPort, of []uint8) {
	for i, e := range endpoints {
		if e.Addr().Is6() == v6 {
			list = append(list, e)
			if weights != nil {
				of = append(of, weights[i])
			}
		}
	}
	return list, of
}

// Nearest is Endpoint among those of the client's family, or of the other where there is none.
func Nearest(client netip.Addr, endpoints []netip.AddrPort, weights []uint8) netip.AddrPort {
	list, of := Family(endpoints, weights, client.Is6())
	if len(list) == 0 {
		list, of = endpoints, weights
	}
	return Endpoint(client, list, of)
}

// Endpoint is the one of the endpoints that the client gets, the zero AddrPort of none.
func Endpoint(client netip.Addr, endpoints []netip.AddrPort, weights []uint8) netip.AddrPort {
	size := Size(len(endpoints))
	t := Table(endpoints, weights, size)
	if t == nil {
		return netip.AddrPort{}
	}
	return endpoints[t[Slot(client, size, Seed)]]
}
