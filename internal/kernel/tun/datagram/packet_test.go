package datagram

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// tcpPacket makes a packet of n bytes payload as the kernel hands it over for segmentation.
func tcpPacket(v6 bool, n int, options []byte, flags byte, seq uint32) ([]byte, ip, offload) {
	head, kind := headerV4, byte(gsoTCPv4)
	if v6 {
		head, kind = headerV6, gsoTCPv6
	}
	b := make([]byte, head+tcpLen+len(options)+n)
	if v6 {
		b[0], b[6], b[7] = 0x60, protoTCP, 64
		b[8], b[23], b[24], b[39] = 0xfd, 1, 0xfd, 2
	} else {
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, protoTCP
		copy(b[12:], []byte{10, 1, 1, 5, 10, 1, 2, 5})
	}
	ip{v6: v6, l4: head}.setLen(b, len(b))
	t := b[head:]
	binary.BigEndian.PutUint16(t, 40000)
	binary.BigEndian.PutUint16(t[2:], 80)
	binary.BigEndian.PutUint32(t[4:], seq)
	t[12], t[13] = byte((tcpLen+len(options))/4)<<4, flags
	copy(t[tcpLen:], options)
	for i := range n {
		t[tcpLen+len(options)+i] = byte(i * 7)
	}
	h, _, _ := parse(b)
	return b, h, offload{needsChecksum: true, kind: kind, size: 1400, csumStart: head, csumOffset: 16}
}

// TestSplitMerge cuts trains and joins the segments again: every segment must stand alone with right checksums, and what comes out must
// be what went in.
func TestSplitMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		options := bytes.Repeat([]byte{1}, 4*r.IntN(4))
		packet, h, o := tcpPacket(i%2 == 1, 1+r.IntN(60000), options, tcpACK|tcpPSH, r.Uint32())
		o.size = 500 + r.IntN(1000)
		if (len(packet)-60)/o.size >= maxParts-1 {
			continue
		}
		var out [][]byte
		m := newMerger(true, func(parts [][]byte) { out = append(out, bytes.Join(parts, nil)) })
		n := 0
		err := split(h, o, packet, func() []byte { return make([]byte, maxHeader) }, func(header, payload []byte) {
			n++
			seg := append(bytes.Clone(header), payload...)
			sh, whole, ok := parse(seg)
			if !ok || len(whole) != len(seg) {
				t.Fatalf("segment %d is no packet", n)
			}
			if fold(sum(pseudo(sh.addrs(seg), sh.proto, len(seg)-sh.l4), seg[sh.l4:])) != 0xffff {
				t.Fatalf("segment %d: wrong TCP checksum", n)
			}
			m.add(sh, seg)
		})
		if err != nil {
			t.Fatal(err)
		}
		m.flush()
		if len(out) != 1 {
			t.Fatalf("%d segments came out as %d packets, want 1", n, len(out))
		}
		got := out[0][offloadLen:]
		if n > 1 {
			if g := readOffload(out[0]); g.size != o.size || g.kind != o.kind || !g.needsChecksum {
				t.Fatalf("offload %+v, want size and kind of %+v", g, o)
			}
			if finish(readOffload(out[0]), got) != nil {
				t.Fatal("checksum can't be finished")
			}
		}
		want := bytes.Clone(packet)
		want[h.l4+16], want[h.l4+17] = 0, 0
		store(want[h.l4+16:], sum(pseudo(h.addrs(want), protoTCP, len(want)-h.l4), want[h.l4:]))
		if !bytes.Equal(got, want) {
			t.Fatalf("packet of %d bytes in %d segments came out changed", len(packet), n)
		}
	}
}

// TestMergeKeepsApart joins nothing that is not one stream.
func TestMergeKeepsApart(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"gap":             func(b []byte) { binary.BigEndian.PutUint32(b[headerV4+4:], 5000) },
		"other flow":      func(b []byte) { b[headerV4+1]++ },
		"FIN":             func(b []byte) { b[headerV4+13] |= tcpFIN },
		"acknowledgement": func(b []byte) { b[headerV4+11]++ },
		"other TTL":       func(b []byte) { b[8]-- },
		"TOS":             func(b []byte) { b[1] = 4 },
		"longer":          nil,
		"wrong checksum":  nil,
	} {
		size := 1000
		if name == "longer" {
			size = 1001
		}
		first, h, _ := tcpPacket(false, 1000, nil, tcpACK, 1)
		second, _, _ := tcpPacket(false, size, nil, tcpACK, 1001)
		if change != nil {
			change(second)
		}
		for _, b := range [][]byte{first, second} {
			h.setLen(b, len(b))
			store(b[headerV4+16:], sum(pseudo(b[12:20], protoTCP, len(b)-headerV4), b[headerV4:]))
		}
		if name == "wrong checksum" {
			second[len(second)-1]++
		}
		var out [][]byte
		m := newMerger(true, func(parts [][]byte) { out = append(out, bytes.Join(parts, nil)[offloadLen:]) })
		a, b := bytes.Clone(first), bytes.Clone(second)
		m.add(h, first)
		h2, _, _ := parse(second)
		m.add(h2, second)
		m.flush()
		if len(out) != 2 || !bytes.Equal(out[0], a) || !bytes.Equal(out[1], b) {
			t.Errorf("%s: %d packets came out, want the two as they were", name, len(out))
		}
	}
}

func TestChecksum(t *testing.T) {
	// RFC 1071, section 3: the sum of these words is ddf2.
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	var got [2]byte
	store(got[:], sum(0, b))
	if got != [2]byte{0x22, 0x0d} {
		t.Errorf("checksum %x, want 220d", got)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		b := make([]byte, r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32()) | byte(0xff*r.IntN(2))
		}
		slow := uint32(0)
		for i := range b {
			slow += uint32(b[i]) << (8 * (1 - i%2))
			slow = slow>>16 + slow&0xffff
		}
		var f [2]byte
		binary.LittleEndian.PutUint16(f[:], fold(sum(0, b)))
		if g := binary.BigEndian.Uint16(f[:]); g != uint16(slow) && g^uint16(slow) != 0xffff {
			t.Fatalf("sum of %x: %04x, want %04x", b, g, slow)
		}
	}
}

// FuzzReceive feeds foreign bytes to what is behind the socket and before the device.
func FuzzReceive(f *testing.F) {
	f.Add(UDPPacket("10.1.1.5", "10.1.2.5", 99, "hello"), 0)
	a, _, _ := tcpPacket(false, 100, nil, tcpACK, 1)
	b, _, _ := tcpPacket(true, 100, nil, tcpACK, 1)
	f.Add(append(bytes.Clone(a), a...), len(a))
	f.Add(append(bytes.Clone(b), b...), len(b))
	e := New(Options{Device: "x"})
	t := newTableFor(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	e.table.Store(t)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		out := 0
		r := &receiver{e: e, merger: newMerger(true, func(parts [][]byte) {
			n := 0
			for _, p := range parts[1:] {
				n += len(p)
			}
			if _, p, ok := parse(bytes.Join(parts[1:], nil)); !ok || len(p) != n {
				t.Fatalf("no packet was written: %x", bytes.Join(parts[1:], nil))
			}
			out += n
		})}
		if size < 0 || size > 1<<16 {
			return
		}
		r.train(netip.MustParseAddr("10.99.0.1"), bytes.Clone(data), size)
		r.merger.flush()
		if out > len(data) {
			t.Fatalf("%d bytes came of %d", out, len(data))
		}
	})
}

// newTableFor lets one peer send from the networks.
func newTableFor(p ...netip.Prefix) *table {
	return &table{allowed: map[netip.Addr][]netip.Prefix{netip.MustParseAddr("10.99.0.1"): p}}
}

// FuzzSend feeds foreign bytes to what is behind the device.
func FuzzSend(f *testing.F) {
	a, _, o := tcpPacket(false, 3000, nil, tcpACK, 1)
	head := make([]byte, offloadLen)
	o.write(head)
	f.Add(append(head, a...))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := New(Options{Device: "x"})
		d := &destination{}
		e.table.Store(&table{
			subnets: map[netip.Prefix]*destination{netip.MustParsePrefix("0.0.0.0/0"): d, netip.MustParsePrefix("::/0"): d},
			lengths: [2][]int{{0}, {0}},
		})
		s := newSender(e, nil)
		s.packet(bytes.Clone(data))
		total := 0
		for _, m := range s.msgs {
			total += m.total
		}
		if len(s.msgs) == 1 && s.msgs[0].total > 1<<16 {
			t.Fatalf("a train of %d bytes", total)
		}
		s.flush()
	})
}
