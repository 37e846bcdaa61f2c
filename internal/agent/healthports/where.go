package healthports

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"weft/internal/proxy"
)

// place is where a port is listened on, as net.Listen takes it; addr "" is all addresses.
type place struct{ network, addr string }

// where are the places of the node's ports: the addresses that accept NodePorts, as with kube-proxy, so that a port is not open to
// networks that NodePorts are kept from. A family that NodePortAddresses does not name is not limited.
func where(n proxy.Node, host []netip.Addr) []place {
	if len(n.NodePortAddresses) == 0 {
		return []place{{"tcp", ""}}
	}
	var out []place
	for _, v6 := range []bool{false, true} {
		of := func(p netip.Prefix) bool { return p.IsValid() && p.Addr().Is6() == v6 && !p.Addr().Is4In6() }
		all := func(p netip.Prefix) bool { return of(p) && p.Bits() == 0 }
		mine := slices.DeleteFunc(slices.Clone(host), func(a netip.Addr) bool { return a.Is6() != v6 || a.IsLinkLocalUnicast() })
		switch {
		case len(mine) == 0:
			continue // the host may not have the family at all
		case slices.ContainsFunc(n.NodePortAddresses, all) || !slices.ContainsFunc(n.NodePortAddresses, of):
			out = append(out, map[bool]place{false: {"tcp4", "0.0.0.0"}, true: {"tcp6", "::"}}[v6])
			continue
		}
		for _, a := range mine {
			in := func(p netip.Prefix) bool { return of(p) && p.Contains(a) }
			if at := (place{"tcp", a.String()}); slices.ContainsFunc(n.NodePortAddresses, in) && !slices.Contains(out, at) {
				out = append(out, at)
			}
		}
	}
	return out
}

// hostAddrs are the addresses of the host's interfaces.
func hostAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the host's addresses: %w", err)
	}
	var out []netip.Addr
	for _, x := range list {
		if p, err := netip.ParsePrefix(x.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}
