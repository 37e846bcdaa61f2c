// Package ipam chooses the address of the next pod in a node's subnet.
//
// Floor 2, planners: pure functions. Who holds which address is the caller's to know.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrFull says that every address of the subnet is in use.
var ErrFull = errors.New("no free address")

// Next returns the first free address after last, going round at the subnet's end, so that an address given up is not given
// out again at once. A last outside the subnet (as the zero Addr) starts at the subnet's beginning.
//
// Never given out are the network address (in IPv6 the routers' anycast address, RFC 4291 2.6.1), the first address, which is the
// gateway, and in IPv4 the last one, the broadcast address.
func Next(subnet netip.Prefix, last netip.Addr, used map[netip.Addr]bool) (netip.Addr, error) {
	if !subnet.IsValid() || subnet.Addr().BitLen()-subnet.Bits() < 2 {
		return netip.Addr{}, fmt.Errorf("allocate from subnet %s: has no address for a pod, want at least 4 addresses", subnet)
	}
	subnet = subnet.Masked()
	first := subnet.Addr().Next().Next()
	at := last
	if !subnet.Contains(at) {
		at = subnet.Addr()
	}
	// Of len(used)+1 different addresses one is free; the reserved ones are three more, and the round may cross them.
	for range len(used) + 4 {
		at = at.Next()
		if at.Less(first) || !subnet.Contains(at) || broadcast(subnet, at) {
			at = first
		}
		if !used[at] {
			return at, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("allocate from subnet %s: %w: %d in use", subnet, ErrFull, len(used))
}

func broadcast(subnet netip.Prefix, a netip.Addr) bool {
	return a.Is4() && !subnet.Contains(a.Next())
}
