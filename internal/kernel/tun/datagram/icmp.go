package datagram

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// trouble is why a packet can't go on.
type trouble int

const (
	unreachable trouble = iota // no peer holds the subnet
	expired                    // TTL at its end
)

// icmpRate bounds the errors of a second, as RFC 1812 4.3.2.8 and RFC 4443 2.4(f) ask for.
const icmpRate = 100

// limiter counts the errors of the current second.
type limiter struct {
	second int64
	n      int
}

func (l *limiter) allow(now time.Time) bool {
	if s := now.Unix(); s != l.second {
		l.second, l.n = s, 0
	}
	l.n++
	return l.n <= icmpRate
}

// icmpError returns the error that tells the sender of a packet about the trouble, from the given address of ours; nil when it must not be told:
// of an error, of a fragment other than the first, of what was for many (RFC 1122 3.2.2, RFC 4443 2.4(e)).
func icmpError(h ip, packet []byte, why trouble, from netip.Addr) []byte {
	later := !h.v6 && binary.BigEndian.Uint16(packet[6:])&0x1fff != 0
	if later || !from.IsValid() || h.dst.IsMulticast() || h.src.IsMulticast() || h.src.IsUnspecified() || isError(h, packet) {
		return nil
	}
	if h.v6 {
		return icmpV6(h, packet, why, from)
	}
	return icmpV4(h, packet, why, from)
}

func isError(h ip, packet []byte) bool {
	if len(packet) <= h.l4 {
		return false
	}
	switch kind := packet[h.l4]; {
	case h.proto == protoICMPv6 && h.v6:
		return kind < 128 || kind == 137
	case h.proto == protoICMP && !h.v6:
		return kind != 0 && kind != 8 && (kind < 13 || kind > 18)
	}
	return false
}

// icmpV4 is an error of RFC 792: net unreachable, time exceeded.
func icmpV4(h ip, packet []byte, why trouble, from netip.Addr) []byte {
	quote := packet[:min(len(packet), 576-headerV4-8)]
	b := make([]byte, headerV4+8+len(quote))
	b[0], b[1], b[8], b[9] = 0x45, 0xc0, 64, protoICMP
	src, dst := from.As4(), h.src.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	ip{l4: headerV4}.setLen(b, len(b))
	m := b[headerV4:]
	switch why {
	case unreachable:
		m[0], m[1] = 3, 0
	case expired:
		m[0], m[1] = 11, 0
	}
	copy(m[8:], quote)
	store(m[2:], sum(0, m))
	return b
}

// icmpV6 is an error of RFC 4443: no route, hop limit exceeded.
func icmpV6(h ip, packet []byte, why trouble, from netip.Addr) []byte {
	quote := packet[:min(len(packet), 1280-headerV6-8)]
	b := make([]byte, headerV6+8+len(quote))
	b[0], b[6], b[7] = 0x60, protoICMPv6, 64
	src, dst := from.As16(), h.src.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	ip{v6: true}.setLen(b, len(b))
	m := b[headerV6:]
	switch why {
	case unreachable:
		m[0], m[1] = 1, 0
	case expired:
		m[0], m[1] = 3, 0
	}
	copy(m[8:], quote)
	store(m[2:], sum(pseudo(b[8:40], protoICMPv6, len(m)), m))
	return b
}
