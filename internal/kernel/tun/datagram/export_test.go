package datagram

import (
	"encoding/binary"
	"net/netip"
)

// UDPPacket makes an IPv4 packet with a datagram.
func UDPPacket(src, dst string, port uint16, text string) []byte {
	b := make([]byte, headerV4+udpLen+len(text))
	b[0], b[8], b[9] = 0x45, 64, protoUDP
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	ip{l4: headerV4}.setLen(b, len(b))
	u := b[headerV4:]
	binary.BigEndian.PutUint16(u, 1234)
	binary.BigEndian.PutUint16(u[2:], port)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[udpLen:], text)
	store(u[6:], sum(pseudo(b[12:20], protoUDP, len(u)), u))
	return b
}
