package facts

import "net/netip"

// Masquerading is the part of the facts that says what the packet filter does with pods' packets, apart from the mode.
type Masquerading struct {
	NonMasquerade []netip.Prefix `json:"nonMasquerade,omitempty"`
	KeepPorts     bool           `json:"keepPorts,omitempty"`
	MarkBits      uint32         `json:"markBits,omitempty"` // 0: the default
	NoForward     bool           `json:"noForward,omitempty"`
}
