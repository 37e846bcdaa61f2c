package datagram

import (
	"encoding/binary"
	"net/netip"
)

// The protocols and fields that are looked at (RFC 791, 8200, 9293).
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	headerV4 = 20
	headerV6 = 40
	udpLen   = 8
	tcpLen   = 20
)

// ip is what the relay wants to know of a packet.
type ip struct {
	v6       bool
	src, dst netip.Addr
	proto    byte
	l4       int // where the transport header begins; without IPv6 extension headers, which stay closed to us
	fragment bool
}

// parse reads the header of a packet and returns the packet without what follows it; ok is false when it is none.
func parse(b []byte) (h ip, packet []byte, ok bool) {
	if len(b) < headerV4 {
		return h, nil, false
	}
	switch b[0] >> 4 {
	case 4:
		h.l4 = int(b[0]&15) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if h.l4 < headerV4 || total < h.l4 || total > len(b) {
			return h, nil, false
		}
		h.src, h.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		h.proto, h.fragment = b[9], binary.BigEndian.Uint16(b[6:])&0x3fff != 0
		return h, b[:total], true
	case 6:
		if len(b) < headerV6 || headerV6+int(binary.BigEndian.Uint16(b[4:])) > len(b) {
			return h, nil, false
		}
		h.v6, h.l4, h.proto = true, headerV6, b[6]
		h.src, h.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		return h, b[:headerV6+int(binary.BigEndian.Uint16(b[4:]))], true
	}
	return h, nil, false
}

// addrs returns both addresses as they stand in the packet.
func (h ip) addrs(b []byte) []byte {
	if h.v6 {
		return b[8:40]
	}
	return b[12:20]
}

// setLen writes the packet's length into its header, and the IPv4 header's checksum.
func (h ip) setLen(b []byte, n int) {
	if h.v6 {
		binary.BigEndian.PutUint16(b[4:], uint16(n-headerV6))
		return
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	b[10], b[11] = 0, 0
	store(b[10:], sum(0, b[:h.l4]))
}

// hop takes one from the TTL or hop limit; false when nothing is left.
func (h ip) hop(b []byte) bool {
	at := 8
	if h.v6 {
		at = 7
	}
	if b[at] <= 1 {
		return false
	}
	b[at]--
	return true
}

// offload is a struct virtio_net_hdr (virtio 1.2, 5.1.6): what the kernel left to do for the packet behind it.
type offload struct {
	needsChecksum         bool
	kind                  byte // virtio GSO type without the ECN bit
	hdrLen, size          int
	csumStart, csumOffset int
}

// Values of its fields.
const (
	flagNeedsChecksum = 1

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5
	gsoECN   = 0x80
)

// offloadLen is the header's length in bytes.
const offloadLen = 10

func readOffload(b []byte) offload {
	at := func(i int) int { return int(binary.NativeEndian.Uint16(b[i:])) }
	return offload{
		needsChecksum: b[0]&flagNeedsChecksum != 0, kind: b[1] &^ gsoECN,
		hdrLen: at(2), size: at(4), csumStart: at(6), csumOffset: at(8),
	}
}

func (o offload) write(b []byte) {
	put := func(i, v int) { binary.NativeEndian.PutUint16(b[i:], uint16(v)) }
	b[0], b[1] = 0, o.kind
	if o.needsChecksum {
		b[0] = flagNeedsChecksum
	}
	put(2, o.hdrLen)
	put(4, o.size)
	put(6, o.csumStart)
	put(8, o.csumOffset)
}
