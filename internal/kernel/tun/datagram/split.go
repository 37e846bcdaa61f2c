package datagram

import (
	"encoding/binary"
	"errors"
)

var (
	errShort   = errors.New("packet is shorter than its headers say")
	errOffload = errors.New("offload of an unknown kind")
)

// TCP flags (RFC 9293).
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80
)

// maxHeader is the most that network and transport headers take: IPv4 with options and TCP with options, in bytes.
const maxHeader = 60 + 60

// finish does what the kernel left to do for a packet that travels whole: its transport checksum. The kernel has put the pseudo header's
// sum into the field.
func finish(o offload, packet []byte) error {
	if !o.needsChecksum {
		return nil
	}
	field := o.csumStart + o.csumOffset
	if o.csumStart > len(packet) || field+2 > len(packet) {
		return errShort
	}
	store(packet[field:], sum(0, packet[o.csumStart:]))
	return nil
}

// split cuts a packet that the kernel left to be segmented, and calls add for each segment with a header of its own, made in the memory that
// room returns, and its part of the packet's payload.
func split(h ip, o offload, packet []byte, room func() []byte, add func(header, payload []byte)) error {
	proto, transport, check := byte(protoTCP), tcpLen, 16
	switch o.kind {
	case gsoTCPv4, gsoTCPv6:
	case gsoUDP:
		proto, transport, check = protoUDP, udpLen, 6
	default:
		return errOffload
	}
	if h.proto != proto || len(packet) < h.l4+transport {
		return errShort
	}
	if proto == protoTCP {
		if transport = int(packet[h.l4+12]>>4) * 4; transport < tcpLen {
			return errShort
		}
	}
	header := h.l4 + transport
	if header > len(packet) || header > maxHeader || o.size == 0 {
		return errShort
	}
	s := segmenter{h: h, proto: proto, header: header, check: h.l4 + check, packet: packet}
	for at, i := header, 0; at < len(packet); i++ {
		end := min(at+o.size, len(packet))
		b := room()[:header]
		s.segment(b, i, at, end)
		add(b, packet[at:end])
		at = end
	}
	return nil
}

// segmenter is the work of one split.
type segmenter struct {
	h             ip
	proto         byte
	header, check int // header length; where the transport checksum is
	packet        []byte
}

// segment makes the header of the i-th segment, whose payload is packet[at:end].
func (s *segmenter) segment(b []byte, i, at, end int) {
	copy(b, s.packet[:s.header])
	if !s.h.v6 {
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:])+uint16(i)) // identification
	}
	s.h.setLen(b, s.header+end-at)
	l4 := s.h.l4
	length := s.header - l4 + end - at
	if s.proto == protoUDP {
		binary.BigEndian.PutUint16(b[l4+4:], uint16(length))
	} else {
		binary.BigEndian.PutUint32(b[l4+4:], binary.BigEndian.Uint32(b[l4+4:])+uint32(at-s.header))
		if end < len(s.packet) {
			b[l4+13] &^= tcpFIN | tcpPSH
		}
		if i > 0 {
			b[l4+13] &^= tcpCWR
		}
	}
	b[s.check], b[s.check+1] = 0, 0
	acc := pseudo(s.h.addrs(b), s.proto, length)
	store(b[s.check:], sum(sum(acc, b[l4:]), s.packet[at:end]))
}
