package proxy

import (
	"net/netip"
	"slices"

	"weft/internal/api"
)

// Weights returns the weights of a list of the service's endpoints, each 1 or more; nil when all are equal.
func Weights(s api.ServicePort, list []netip.AddrPort) []uint8 {
	if !slices.ContainsFunc(s.Endpoints, func(e api.Endpoint) bool { return e.Weight > 1 }) {
		return nil
	}
	of := make(map[netip.AddrPort]uint8, len(s.Endpoints))
	for _, e := range s.Endpoints {
		of[e.Addr] = max(1, e.Weight)
	}
	out := make([]uint8, len(list))
	equal := true
	for i, a := range list {
		out[i] = max(1, of[a])
		equal = equal && out[i] == out[0]
	}
	if equal {
		return nil
	}
	return out
}

// Spread names every endpoint as often as its weight asks, at least once, so that who draws evenly from the result draws by weight. It
// has at most the given length or one that leaves each endpoint once; weights are rounded to fit. Without weights it is the list.
func Spread(list []netip.AddrPort, weights []uint8, most int) []netip.AddrPort {
	if weights == nil {
		return list
	}
	shares := reduced(weights)
	total := 0
	for _, s := range shares {
		total += s
	}
	if most = max(most, len(list)); total > most {
		for i, s := range shares {
			shares[i] = max(1, s*most/total)
		}
	}
	var out []netip.AddrPort
	for more := true; more; {
		more = false
		for i := range shares {
			if shares[i] > 0 {
				shares[i]--
				more = true
				out = append(out, list[i])
			}
		}
	}
	return out
}

// reduced divides the weights by what they have in common.
func reduced(weights []uint8) []int {
	common := 0
	out := make([]int, len(weights))
	for i, w := range weights {
		out[i] = max(1, int(w))
		a := out[i]
		for common, a = a, common; a != 0; common, a = a, common%a {
		}
	}
	for i := range out {
		out[i] /= common
	}
	return out
}
