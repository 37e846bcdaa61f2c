package ways

import (
	"fmt"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/overlay"
	"weft/internal/overlay/wireguard"
)

// unreacher is a backend that can't reach every host whose lease is good.
type unreacher interface {
	Unreached(self overlay.Self, l api.Lease) string
}

// Unreached says why the way chosen to a peer does not lead there, or not for one of its families; "" when it does, and when none is chosen.
func Unreached(f facts.Facts, ways []Way, l api.Lease) string {
	as, chosen := choose(f, ways, l)
	if chosen < 0 {
		return ""
	}
	if u, ok := ways[chosen].Backend.(unreacher); ok {
		return u.Unreached(ways[chosen].Self, as)
	}
	return ""
}

// Lacks says which address the underlay interface must get before the node can be part of the network, "" when it has what it takes.
func Lacks(f facts.Facts) string {
	need := needs(f, f.Backend, f.Options)
	if o := f.Other; o != nil {
		other := needs(f, o.Backend, o.Options)
		need = [2]bool{need[0] || other[0], need[1] || other[1]}
	}
	for i, version := range []int{4, 6} {
		if need[i] && !f.Addr(i == 1).IsValid() {
			return fmt.Sprintf("%s has no IPv%d address, over which pods' packets are to travel (backend %s): give it one or name another interface (--iface)",
				f.Dev, version, f.Backend)
		}
	}
	return ""
}

// needs says over which families, IPv4 and IPv6, a backend sends.
func needs(f facts.Facts, backend string, o overlay.Options) [2]bool {
	own := [2]bool{f.Network.IsValid(), f.NetworkV6.IsValid()}
	switch {
	case backend == lease.L2, backend == lease.WireGuard && o.Mode == wireguard.ModeIPv4:
		return [2]bool{true, false}
	case backend == lease.WireGuard && o.Mode == wireguard.ModeIPv6:
		return [2]bool{false, true}
	case backend == lease.UDP, backend == lease.WireGuard && o.Mode == wireguard.ModeAuto:
		return [2]bool{} // whichever there is
	}
	return own
}

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// Doubts are what of the network's configuration the host does not follow as it is written, or what can't work so, one line each.
func Doubts(f facts.Facts) []string {
	var out []string
	if self := f.Self(api.Lease{}); self.TooWide() {
		out = append(out, fmt.Sprintf("network configuration: Backend.MTU %d is more than %s carries: %d counts; raise the interface's MTU or lower Backend.MTU",
			f.Options.MTU, f.Dev, f.MTU))
	}
	if b, err := Backend(f.Backend); err == nil && f.NetworkV6.IsValid() {
		if mtu := overlay.MTU(b, f.Self(api.Lease{SubnetV6: f.NetworkV6})); mtu < overlay.MinMTUv6 {
			out = append(out, fmt.Sprintf("IPv6 pods have no path: the MTU of %s leaves them %d bytes under backend %s, and IPv6 needs %d (RFC 8200): "+
				"raise the interface's MTU to %d", f.Dev, mtu, f.Backend, overlay.MinMTUv6, f.MTU+overlay.MinMTUv6-mtu))
		}
	}
	if f.Backend != lease.HostGW {
		return out
	}
	for _, v6 := range []bool{false, true} {
		if p := f.Public(v6); p.IsValid() && needs(f, f.Backend, f.Options)[family(v6)] && !slices.Contains(f.Addrs, p) {
			out = append(out, fmt.Sprintf("public address %s is none of %s: other nodes route to it directly (backend host-gw), so nothing may come back: "+
				"correct --public-ip or the node's annotation", p, f.Dev))
		}
	}
	return out
}
