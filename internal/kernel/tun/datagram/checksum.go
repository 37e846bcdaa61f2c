package datagram

import (
	"encoding/binary"
	"math/bits"
)

// Checksums are those of RFC 1071. Words are loaded little-endian, whatever the machine, and the result is stored the same way: a ones'
// complement sum does not mind.

// sum adds b to an unfolded sum. All but the last of several parts must be of even length.
func sum(acc uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 64 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:]), carry)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	for len(b) >= 2 {
		acc, carry = bits.Add64(acc, uint64(binary.LittleEndian.Uint16(b)), 0)
		acc += carry
		b = b[2:]
	}
	if len(b) == 1 {
		acc, carry = bits.Add64(acc, uint64(b[0]), 0)
		acc += carry
	}
	return acc
}

// fold brings a sum to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// store writes a checksum. Zero means "none" in UDP, and for all others its complement is as good.
func store(to []byte, acc uint64) {
	c := ^fold(acc)
	if c == 0 {
		c = 0xffff
	}
	binary.LittleEndian.PutUint16(to, c)
}

// pseudo is the sum of the pseudo header: addresses, protocol and length in bytes of the transport header with its payload.
func pseudo(addrs []byte, protocol byte, length int) uint64 {
	return uint64(fold(sum(0, addrs))) + uint64(protocol)<<8 + uint64(bits.ReverseBytes16(uint16(length)))
}
