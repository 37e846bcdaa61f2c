package nft

import (
	"encoding/binary"
	"net/netip"
)

// Type is the data type of one component of a key or value (nft(8), "DATA TYPES").
type Type uint8

// The types. NumGen is the number a Random expression makes: an integer without a name of its own in nft(8).
const (
	IPv4Addr    Type = iota + 1 // 4 bytes
	IPv6Addr                    // 16 bytes
	InetProto                   // 1 byte: 6 TCP, 17 UDP, 132 SCTP
	InetService                 // 2 bytes: a port
	IfName                      // 16 bytes
	NumGen                      // 4 bytes in host order
)

// Len is the type's size in bytes, without padding.
func (t Type) Len() int { return [...]int{0, 4, 16, 1, 2, 16, 4}[t] }

// Tuple is a key or value of one or more components as the kernel holds it: each in network byte order (numbers in host order) and padded with zeros to a multiple of four bytes. As a string it is compact, comparable, and sorts by address.
type Tuple string

// TupleBuilder appends components to a Tuple.
type TupleBuilder []byte

// Addr appends an address of 4 or 16 bytes.
func (b TupleBuilder) Addr(a netip.Addr) TupleBuilder {
	if a.Is4() {
		v := a.As4()
		return append(b, v[:]...)
	}
	v := a.As16()
	return append(b, v[:]...)
}

// Proto appends an IP protocol number.
func (b TupleBuilder) Proto(p uint8) TupleBuilder { return append(b, p, 0, 0, 0) }

// Port appends a port.
func (b TupleBuilder) Port(p uint16) TupleBuilder { return append(b, byte(p>>8), byte(p), 0, 0) }

// Num appends a number.
func (b TupleBuilder) Num(n uint32) TupleBuilder { return binary.NativeEndian.AppendUint32(b, n) }

// IfName appends an interface name.
func (b TupleBuilder) IfName(name string) TupleBuilder {
	var v [16]byte
	copy(v[:15], name)
	return append(b, v[:]...)
}

// Tuple returns what was built.
func (b TupleBuilder) Tuple() Tuple { return Tuple(b) }

// Value is one component of a tuple, or what a field is compared with. Which member counts depends on the type.
type Value struct {
	Addr netip.Addr // addresses
	Num  uint32     // protocols, ports, numbers
	Name string     // interface names
}

// Fits reports whether the tuple has the length of the types.
func (t Tuple) Fits(types []Type) bool {
	n := 0
	for _, k := range types {
		n += padded(k.Len())
	}
	return n == len(t)
}

func padded(n int) int { return (n + 3) &^ 3 }

// Values takes the tuple apart. It returns nil when the tuple does not have the length of the types.
func (t Tuple) Values(types []Type) []Value {
	if !t.Fits(types) {
		return nil
	}
	out := make([]Value, len(types))
	for i, k := range types {
		n := padded(k.Len())
		out[i], t = t[:n].value(k), t[n:]
	}
	return out
}

func (t Tuple) value(k Type) Value {
	switch k {
	case IPv4Addr:
		return Value{Addr: netip.AddrFrom4([4]byte([]byte(t)))}
	case IPv6Addr:
		return Value{Addr: netip.AddrFrom16([16]byte([]byte(t)))}
	case InetProto:
		return Value{Num: uint32(t[0])}
	case InetService:
		return Value{Num: uint32(t[0])<<8 | uint32(t[1])}
	case IfName:
		n := 0
		for n < len(t) && t[n] != 0 {
			n++
		}
		return Value{Name: string(t[:n])}
	}
	return Value{Num: binary.NativeEndian.Uint32([]byte(t))}
}

// MakeTuple puts a tuple together: the opposite of Values.
func MakeTuple(types []Type, values []Value) Tuple {
	var b TupleBuilder
	for i, k := range types {
		switch v := values[i]; k {
		case IPv4Addr, IPv6Addr:
			b = b.Addr(v.Addr)
		case InetProto:
			b = b.Proto(uint8(v.Num))
		case InetService:
			b = b.Port(uint16(v.Num))
		case IfName:
			b = b.IfName(v.Name)
		default:
			b = b.Num(v.Num)
		}
	}
	return b.Tuple()
}
