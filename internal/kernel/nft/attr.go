package nft

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// buf is a netlink message, or several, in the making.
type buf []byte

const nested = unix.NLA_F_NESTED

func align(n int) int { return (n + 3) &^ 3 }

// attr appends an attribute.
func (b *buf) attr(typ uint16, data []byte) {
	h := (*b)
	h = native.AppendUint16(h, uint16(4+len(data)))
	h = native.AppendUint16(h, typ)
	h = append(h, data...)
	*b = append(h, make([]byte, align(len(data))-len(data))...)
}

// str appends an attribute that holds text with a zero byte at its end.
func (b *buf) str(typ uint16, s string) {
	h := (*b)
	h = native.AppendUint16(h, uint16(4+len(s)+1))
	h = native.AppendUint16(h, typ)
	h = append(h, s...)
	*b = append(h, "\x00\x00\x00\x00"[:align(len(s)+1)-len(s)]...)
}

// raw appends an attribute that holds the bytes of s, whose length is a multiple of four.
func (b *buf) raw(typ uint16, s string) {
	h := native.AppendUint16(*b, uint16(4+len(s)))
	h = native.AppendUint16(h, typ)
	*b = append(h, s...)
}

// u32 appends a number in network byte order.
func (b *buf) u32(typ uint16, n uint32) {
	h := native.AppendUint16(*b, 8)
	h = native.AppendUint16(h, typ)
	*b = binary.BigEndian.AppendUint32(h, n)
}

// u64 appends a number in network byte order.
func (b *buf) u64(typ uint16, n uint64) {
	h := native.AppendUint16(*b, 12)
	h = native.AppendUint16(h, typ)
	*b = binary.BigEndian.AppendUint64(h, n)
}

// begin opens a nested attribute; end closes it.
func (b *buf) begin(typ uint16) (at int) {
	at = len(*b)
	*b = native.AppendUint16(*b, 0)
	*b = native.AppendUint16(*b, typ|nested)
	return at
}

func (b *buf) end(at int) { native.PutUint16((*b)[at:], uint16(len(*b)-at)) }

// header opens a message of the nf_tables subsystem; close sets its length.
func (b *buf) header(typ, flags uint16, seq uint32, family uint8) (at int) {
	at = len(*b)
	h := native.AppendUint32(*b, 0)
	h = native.AppendUint16(h, typ)
	h = native.AppendUint16(h, flags|unix.NLM_F_REQUEST)
	h = native.AppendUint32(h, seq)
	h = native.AppendUint32(h, 0)
	*b = append(h, family, unix.NFNETLINK_V0, 0, 0)
	return at
}

func (b *buf) close(at int) { native.PutUint32((*b)[at:], uint32(len(*b)-at)) }

// nfgenmsg is the length of struct nfgenmsg, which follows each message's header.
const nfgenmsg = 4

// attributes calls f for each attribute in b, without the flags in its type.
func attributes(b []byte, f func(typ uint16, v []byte) error) error {
	for len(b) >= 4 {
		n := int(native.Uint16(b))
		if n < 4 || n > len(b) {
			return errMalformed
		}
		if err := f(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n]); err != nil {
			return err
		}
		b = b[min(align(n), len(b)):]
	}
	return nil
}

// text is the text of an attribute.
func text(v []byte) string {
	if i := bytes.IndexByte(v, 0); i >= 0 {
		v = v[:i]
	}
	return string(v)
}

// number is the number of an attribute in network byte order, of any size.
func number(v []byte) uint64 {
	var n uint64
	for _, c := range v[:min(len(v), 8)] {
		n = n<<8 | uint64(c)
	}
	return n
}

// attrs are the attributes of one object by type. Types are small numbers.
type attrs [64][]byte

// parse reads attributes; those of types beyond the array are counted as foreign.
func parse(b []byte) (a attrs, foreign bool, err error) {
	err = attributes(b, func(typ uint16, v []byte) error {
		if int(typ) >= len(a) {
			foreign = true
			return nil
		}
		a[typ] = v
		if v == nil {
			a[typ] = []byte{}
		}
		return nil
	})
	return a, foreign, err
}
