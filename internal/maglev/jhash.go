package maglev

import (
	"encoding/binary"
	"math/bits"
)

// JHash is Bob Jenkins' hash lookup3 as the kernel has it (linux/jhash.h), for keys of any length.
func JHash(key []byte, seed uint32) uint32 {
	s := state{}
	s.a = 0xdeadbeef + uint32(len(key)) + seed
	s.b, s.c = s.a, s.a
	for len(key) > 12 {
		s.a += binary.NativeEndian.Uint32(key)
		s.b += binary.NativeEndian.Uint32(key[4:])
		s.c += binary.NativeEndian.Uint32(key[8:])
		s.mix()
		key = key[12:]
	}
	if len(key) == 0 {
		return s.c
	}
	var rest [12]byte // the kernel reads these in little-endian order everywhere
	copy(rest[:], key)
	s.a += binary.LittleEndian.Uint32(rest[:])
	s.b += binary.LittleEndian.Uint32(rest[4:])
	s.c += binary.LittleEndian.Uint32(rest[8:])
	s.final()
	return s.c
}

type state struct{ a, b, c uint32 }

func (s *state) mix() {
	rounds := [...]struct {
		x, y, z *uint32
		by      int
	}{
		{&s.a, &s.c, &s.b, 4},
		{&s.b, &s.a, &s.c, 6},
		{&s.c, &s.b, &s.a, 8},
		{&s.a, &s.c, &s.b, 16},
		{&s.b, &s.a, &s.c, 19},
		{&s.c, &s.b, &s.a, 4},
	}
	for _, r := range rounds {
		*r.x -= *r.y
		*r.x ^= bits.RotateLeft32(*r.y, r.by)
		*r.y += *r.z
	}
}

func (s *state) final() {
	rounds := [...]struct {
		x, y *uint32
		by   int
	}{
		{&s.c, &s.b, 14},
		{&s.a, &s.c, 11},
		{&s.b, &s.a, 25},
		{&s.c, &s.b, 16},
		{&s.a, &s.c, 4},
		{&s.b, &s.a, 14},
		{&s.c, &s.b, 24},
	}
	for _, r := range rounds {
		*r.x ^= *r.y
		*r.x -= bits.RotateLeft32(*r.y, r.by)
	}
}
