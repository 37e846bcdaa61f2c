package facts

import "net/netip"

// PodNetworks are the pod networks without the underlay: in the walkthrough 172.16.0.0/12 holds the hosts' 172.17.0.0/16 too, and a
// client there is no pod, which counts for what comes from outside (externalTrafficPolicy).
func (f Facts) PodNetworks() []netip.Prefix {
	networks := Valid(f.Network, f.NetworkV6)
	for _, hole := range f.Connected {
		var rest []netip.Prefix
		for _, n := range networks {
			rest = append(rest, subtract(n, hole)...)
		}
		networks = rest
	}
	return networks
}

// subtract returns the parts of p that lie outside hole; a hole as large as p or larger leaves p whole: then the network is what the
// interface is connected to, and no part of it can be told apart.
func subtract(p, hole netip.Prefix) []netip.Prefix {
	if !p.Overlaps(hole) || hole.Bits() <= p.Bits() {
		return []netip.Prefix{p}
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	high := netip.PrefixFrom(setBit(p.Addr(), p.Bits()), p.Bits()+1)
	if low.Overlaps(hole) {
		if low == hole {
			return []netip.Prefix{high}
		}
		return append(subtract(low, hole), high)
	}
	if high == hole {
		return []netip.Prefix{low}
	}
	return append([]netip.Prefix{low}, subtract(high, hole)...)
}

// setBit returns the address with the bit set, counted from the left.
func setBit(a netip.Addr, bit int) netip.Addr {
	b := a.AsSlice()
	b[bit/8] |= 0x80 >> (bit % 8)
	out, _ := netip.AddrFromSlice(b) // the length is the same
	return out
}

// Valid are those of the networks that there are: a family that is not in use has the zero Prefix.
func Valid(all ...netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
