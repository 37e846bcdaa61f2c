// Package wire speaks netlink(7) in the route family: messages, attributes, dumps, and requests sent many at a time.
//
// Floor 3, edges.
package wire

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// order is the byte order of netlink: the host's.
var order = binary.NativeEndian

// Buffer collects messages to send in one datagram. Its zero value is empty.
type Buffer struct {
	bytes  []byte
	starts []int
}

// Len is the number of bytes collected, Count the number of messages.
func (b *Buffer) Len() int { return len(b.bytes) }

// Count is the number of messages.
func (b *Buffer) Count() int { return len(b.starts) }

// Reset empties the buffer and keeps its memory.
func (b *Buffer) Reset() { b.bytes, b.starts = b.bytes[:0], b.starts[:0] }

// Begin starts a message of the type (nlmsg_type) with the flags (nlmsg_flags) and the fixed header that follows struct nlmsghdr.
func (b *Buffer) Begin(typ, flags uint16, header []byte) {
	b.starts = append(b.starts, len(b.bytes))
	b.bytes = append(b.bytes, make([]byte, unix.SizeofNlMsghdr)...)
	h := b.bytes[len(b.bytes)-unix.SizeofNlMsghdr:]
	order.PutUint16(h[4:], typ)
	order.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	b.bytes = append(b.bytes, header...)
	b.pad()
}

// End closes the message.
func (b *Buffer) End() {
	start := b.starts[len(b.starts)-1]
	order.PutUint32(b.bytes[start:], uint32(len(b.bytes)-start))
}

func (b *Buffer) pad() {
	for len(b.bytes)%4 != 0 {
		b.bytes = append(b.bytes, 0)
	}
}

// Attr adds an attribute (struct rtattr).
func (b *Buffer) Attr(typ uint16, data ...byte) {
	b.bytes = order.AppendUint16(b.bytes, uint16(4+len(data)))
	b.bytes = order.AppendUint16(b.bytes, typ)
	b.bytes = append(b.bytes, data...)
	b.pad()
}

// U8 adds an attribute of one byte.
func (b *Buffer) U8(typ uint16, v uint8) { b.Attr(typ, v) }

// U32 adds an attribute of four bytes in the host's order.
func (b *Buffer) U32(typ uint16, v uint32) {
	b.bytes = order.AppendUint16(b.bytes, 8)
	b.bytes = order.AppendUint16(b.bytes, typ)
	b.bytes = order.AppendUint32(b.bytes, v)
}

// BE16 adds an attribute of two bytes in network order, as ports are.
func (b *Buffer) BE16(typ uint16, v uint16) { b.Attr(typ, byte(v>>8), byte(v)) }

// Text adds a string attribute with its terminating zero.
func (b *Buffer) Text(typ uint16, s string) { b.Attr(typ, append([]byte(s), 0)...) }

// Addr adds an IP address of 4 or 16 bytes.
func (b *Buffer) Addr(typ uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		b.Attr(typ, v[:]...)
		return
	}
	v := a.As16()
	b.Attr(typ, v[:]...)
}

// Nest adds an attribute that holds those that fill adds.
func (b *Buffer) Nest(typ uint16, fill func()) {
	start := len(b.bytes)
	b.bytes = append(b.bytes, 0, 0, 0, 0)
	fill()
	order.PutUint16(b.bytes[start:], uint16(len(b.bytes)-start))
	order.PutUint16(b.bytes[start+2:], typ)
}

// Raw adds bytes inside a nested attribute, as the struct ifinfomsg of a veth's peer.
func (b *Buffer) Raw(data []byte) {
	b.bytes = append(b.bytes, data...)
	b.pad()
}

// Messages returns the messages collected, for looking at them.
func (b *Buffer) Messages() []Message {
	out, err := split(b.bytes)
	if err != nil {
		return nil
	}
	return out
}

// stamp numbers the messages from first and asks for acknowledgement of the last.
func (b *Buffer) stamp(first, port uint32) {
	for i, at := range b.starts {
		order.PutUint32(b.bytes[at+8:], first+uint32(i))
		order.PutUint32(b.bytes[at+12:], port)
		if i == len(b.starts)-1 {
			order.PutUint16(b.bytes[at+6:], order.Uint16(b.bytes[at+6:])|unix.NLM_F_ACK)
		}
	}
}

// Attrs yields the attributes of b with their types, without the nested and byte order bits. It stops where b is malformed.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(order.Uint16(b))
			if n < 4 || n > len(b) {
				return
			}
			if !yield(order.Uint16(b[2:])&0x3fff, b[4:n:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// U32 reads a number of four bytes in the host's order, 0 if b is shorter.
func U32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return order.Uint32(b)
}

// U16 reads a number of two bytes in the host's order, 0 if b is shorter.
func U16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return order.Uint16(b)
}

// PutU32 writes a number of four bytes in the host's order into a fixed header.
func PutU32(b []byte, v uint32) { order.PutUint32(b, v) }

// PutU16 writes a number of two bytes in the host's order into a fixed header.
func PutU16(b []byte, v uint16) { order.PutUint16(b, v) }

// U16Bytes is a number as two bytes in the host's order.
func U16Bytes(v uint16) []byte { return order.AppendUint16(nil, v) }

// BE16 reads a number of two bytes in network order, 0 if b is shorter.
func BE16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// Text reads a string attribute.
func Text(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// Addr reads an IP address, the zero Addr if b is none.
func Addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// MAC reads an Ethernet address as text, "" if b is none.
func MAC(b []byte) string {
	if len(b) != 6 {
		return ""
	}
	const digits = "0123456789abcdef"
	var t [17]byte
	for i, x := range b {
		t[3*i], t[3*i+1] = digits[x>>4], digits[x&15]
		if i < 5 {
			t[3*i+2] = ':'
		}
	}
	return string(t[:])
}

// ParseMAC reads the text of an Ethernet address; ok is false if it is none.
func ParseMAC(s string) (mac [6]byte, ok bool) {
	if len(s) != 17 {
		return mac, false
	}
	for i := range mac {
		hi, lo := nibble(s[3*i]), nibble(s[3*i+1])
		if hi > 15 || lo > 15 || (i < 5 && s[3*i+2] != ':') {
			return mac, false
		}
		mac[i] = hi<<4 | lo
	}
	return mac, true
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
