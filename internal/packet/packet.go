// Package packet holds the headers that decide where a packet goes.
//
// Floor 1, values: no I/O, no clock.
package packet

import (
	"fmt"
	"net/netip"
)

// Flow is the transport 5-tuple of a packet. Ports are 0 where they are not known yet (the kernel will choose).
type Flow struct {
	Proto string         `json:"proto"` // "tcp", "udp", "icmp", "sctp", as ip(8) and iptables(8) spell it
	Src   netip.AddrPort `json:"src"`
	Dst   netip.AddrPort `json:"dst"`
}

// String is "tcp 172.16.28.5:38380 -> 10.254.247.121:8080"; an unknown address or port prints as *.
func (f Flow) String() string {
	return fmt.Sprintf("%s %s -> %s", f.Proto, End(f.Src), End(f.Dst))
}

// Reply is the flow of the packets that answer f.
func (f Flow) Reply() Flow { return Flow{Proto: f.Proto, Src: f.Dst, Dst: f.Src} }

// End prints one end of a flow: "172.16.28.5:80", "172.16.28.5:*" or "*:*".
func End(a netip.AddrPort) string {
	switch {
	case a.Addr().IsValid() && a.Port() != 0:
		return a.String()
	case a.Addr().Is6():
		return "[" + a.Addr().String() + "]:*"
	case a.Addr().IsValid():
		return a.Addr().String() + ":*"
	case a.Port() != 0:
		return fmt.Sprintf("*:%d", a.Port())
	}
	return "*:*"
}
