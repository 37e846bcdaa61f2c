package datagram

import (
	"bytes"
	"encoding/binary"
)

// maxTrains is how many flows are gathered at once; maxParts how many packets of each.
const (
	maxTrains = 8
	maxParts  = 128
)

// train is packets of one flow that go to the kernel as one, to be taken apart again, if at all, at the receiver's socket.
type train struct {
	h         ip
	header    int // length of the network and transport headers
	proto     byte
	size      int // payload of each but the last
	total     int
	next      uint32 // TCP sequence number that would follow
	done      bool   // nothing may follow
	parts     [][]byte
	transport []byte // of the first packet: to compare with
}

// merger gathers packets into trains and gives them to write in the order they came, flow by flow. A checksum it does not keep it
// has verified.
type merger struct {
	udp    bool // datagrams too
	trains []train
	header [offloadLen]byte
	parts  [][]byte
	write  func(parts [][]byte)
}

// add takes a packet, whose memory must stay until flush.
func (m *merger) add(h ip, packet []byte) {
	header, ok := m.fits(h, packet)
	if h.fragment || (h.proto != protoTCP && h.proto != protoUDP) {
		m.single(packet)
		return
	}
	for i := range m.trains {
		t := &m.trains[i]
		if !t.sameFlow(h, packet) {
			continue
		}
		if ok && t.append(h, header, packet) {
			return
		}
		m.send(t)
		last := len(m.trains) - 1
		m.trains[i], m.trains[last] = m.trains[last], m.trains[i] // both keep their own memory
		m.trains = m.trains[:last]
		break
	}
	if !ok {
		m.single(packet)
		return
	}
	if len(m.trains) == maxTrains {
		m.flush()
	}
	m.begin(h, header, packet)
}

// fits reports whether the packet may be part of a train, and how long its headers are: TCP with nothing but ACK and PSH set, or a datagram
// with checksum, with a payload and the right checksum.
func (m *merger) fits(h ip, packet []byte) (header int, ok bool) {
	if h.fragment || (!h.v6 && (h.l4 != headerV4 || fold(sum(0, packet[:headerV4])) != 0xffff)) {
		return 0, false
	}
	switch {
	case h.proto == protoTCP:
		header, ok = tcpHeader(h, packet)
	case h.proto == protoUDP && m.udp:
		header, ok = udpHeader(h, packet)
	}
	if !ok || header >= len(packet) {
		return 0, false
	}
	return header, fold(sum(pseudo(h.addrs(packet), h.proto, len(packet)-h.l4), packet[h.l4:])) == 0xffff
}

// tcpHeader is the length of all headers of a segment that has nothing but ACK and PSH set.
func tcpHeader(h ip, packet []byte) (header int, ok bool) {
	if len(packet) < h.l4+tcpLen {
		return 0, false
	}
	header = h.l4 + int(packet[h.l4+12]>>4)*4
	return header, packet[h.l4+13]&^tcpPSH == tcpACK && header >= h.l4+tcpLen
}

// udpHeader is the length of all headers of a datagram that has a checksum and the length it says.
func udpHeader(h ip, packet []byte) (header int, ok bool) {
	if len(packet) < h.l4+udpLen || binary.BigEndian.Uint16(packet[h.l4+6:]) == 0 {
		return 0, false
	}
	return h.l4 + udpLen, int(binary.BigEndian.Uint16(packet[h.l4+4:])) == len(packet)-h.l4
}

// begin starts a train with the packet.
func (m *merger) begin(h ip, header int, packet []byte) {
	m.trains = m.trains[:len(m.trains)+1]
	t := &m.trains[len(m.trains)-1]
	*t = train{
		h: h, header: header, proto: h.proto, size: len(packet) - header, total: len(packet), parts: append(t.parts[:0], packet),
		transport: packet[h.l4:header],
	}
	if t.proto == protoTCP {
		t.next = binary.BigEndian.Uint32(t.transport[4:]) + uint32(t.size)
		t.done = t.transport[13]&tcpPSH != 0
	}
}

// sameFlow compares addresses, protocol and ports.
func (t *train) sameFlow(h ip, packet []byte) bool {
	return t.proto == h.proto && t.h.v6 == h.v6 && len(packet) >= h.l4+4 &&
		bytes.Equal(t.h.addrs(t.parts[0]), h.addrs(packet)) && bytes.Equal(t.transport[:4], packet[h.l4:h.l4+4])
}

// append takes the packet into the train if that is as if they had been one.
func (t *train) append(h ip, header int, packet []byte) bool {
	size := len(packet) - header
	if t.done || header != t.header || size > t.size || t.total+size > 0xffff || len(t.parts) == maxParts || !t.sameHeader(h, packet) {
		return false
	}
	if t.proto == protoTCP {
		p := packet[h.l4:header]
		// Sequence; acknowledgement and data offset; options, as timestamps.
		if binary.BigEndian.Uint32(p[4:]) != t.next || !bytes.Equal(p[8:13], t.transport[8:13]) || !bytes.Equal(p[20:], t.transport[20:]) {
			return false
		}
		t.next += uint32(size)
		if p[13]&tcpPSH != 0 {
			t.transport[13] |= tcpPSH
			t.done = true
		}
		copy(t.transport[14:16], p[14:16]) // the latest window
	}
	t.done = t.done || size < t.size
	t.total += size
	t.parts = append(t.parts, packet[header:])
	return true
}

// sameHeader compares what of the network header counts: TOS, TTL, don't fragment; traffic class and flow label.
func (t *train) sameHeader(h ip, packet []byte) bool {
	a, b := t.parts[0], packet
	if h.v6 {
		return bytes.Equal(a[:4], b[:4]) && a[7] == b[7]
	}
	return a[1] == b[1] && a[6]&0x40 == b[6]&0x40 && a[8] == b[8]
}

// single writes a packet that stays alone; the kernel verifies its checksum.
func (m *merger) single(packet []byte) {
	offload{}.write(m.header[:])
	m.parts = append(m.parts[:0], m.header[:], packet)
	m.write(m.parts)
}

// send writes a train.
func (m *merger) send(t *train) {
	if len(t.parts) == 1 {
		m.single(t.parts[0])
		return
	}
	first, check := t.parts[0], 16
	o := offload{needsChecksum: true, kind: gsoTCPv4, hdrLen: t.header, size: t.size, csumStart: t.h.l4, csumOffset: 16}
	switch {
	case t.proto == protoUDP:
		o.kind, o.csumOffset, check = gsoUDP, 6, 6
		binary.BigEndian.PutUint16(first[t.h.l4+4:], uint16(t.total-t.h.l4))
	case t.h.v6:
		o.kind = gsoTCPv6
	}
	t.h.setLen(first, t.total)
	binary.LittleEndian.PutUint16(first[t.h.l4+check:], fold(pseudo(t.h.addrs(first), t.proto, t.total-t.h.l4)))
	o.write(m.header[:])
	m.parts = append(append(m.parts[:0], m.header[:]), t.parts...)
	m.write(m.parts)
}

// flush writes all trains.
func (m *merger) flush() {
	for i := range m.trains {
		m.send(&m.trains[i])
	}
	m.trains = m.trains[:0]
}

func newMerger(udp bool, write func([][]byte)) *merger {
	return &merger{udp: udp, trains: make([]train, 0, maxTrains), parts: make([][]byte, 0, maxParts+1), write: write}
}
