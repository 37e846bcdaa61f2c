package overlay

import (
	"net/netip"

	"weft/internal/api"
)

// copied is how two hosts come to be the same.
const copied = " is this node's own: one of the two hosts was copied from the other; restart the agent on the newer one, which makes another"

// identities holds which host has each VTEP MAC, those of the two families' devices apart, and each WireGuard key.
type identities map[identity]publics

type identity struct {
	what identityKind
	is   string
}

type identityKind uint8

const (
	macV4 identityKind = iota
	macV6
	wgKey
)

// publics are a host's addresses, as far as the identity depends on them.
type publics struct{ v4, v6 netip.Addr }

// of returns the identity that the lease has of the kind, and whose it is.
func (k identityKind) of(l api.Lease) (identity, publics) {
	switch k {
	case macV4:
		return identity{k, l.VTEPMAC}, publics{v4: l.PublicIP}
	case macV6:
		return identity{k, l.VTEPMACv6}, publics{v6: l.PublicIPv6}
	}
	return identity{k, l.WGKey}, publics{l.PublicIP, l.PublicIPv6}
}

func (h identities) add(l api.Lease) {
	for _, k := range []identityKind{macV4, macV6, wgKey} {
		if id, at := k.of(l); id.is != "" {
			h[id] = at
		}
	}
}

// conflict returns which identity of the lease another host has too.
func (h identities) conflict(l api.Lease) (id identity, ok bool) {
	for _, k := range []identityKind{macV4, macV6, wgKey} {
		id, at := k.of(l)
		if other, there := h[id]; id.is != "" && there && other != at {
			return id, true
		}
	}
	return identity{}, false
}

// shared returns which identity two leases have in common.
func shared(a, b api.Lease) (id identity, ok bool) {
	for _, k := range []identityKind{macV4, macV6, wgKey} {
		id, _ := k.of(a)
		if other, _ := k.of(b); id.is != "" && id == other {
			return id, true
		}
	}
	return identity{}, false
}

// String names it in a sentence.
func (id identity) String() string {
	if id.what == wgKey {
		return "WireGuard key " + id.is
	}
	return "VTEP MAC " + id.is
}

// kind is the word for counting.
func (id identity) kind() string {
	if id.what == wgKey {
		return BadKey
	}
	return BadMAC
}
