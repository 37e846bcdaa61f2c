package conntrack

import (
	"encoding/binary"
	"net/netip"
)

// headerLen is the length of struct nfgenmsg.
const headerLen = 4

// nlaTypeMask takes the flags from an attribute's type (linux/netlink.h).
const nlaTypeMask = 0x3fff

// parse reads one message of a dump; ok is false for one that is no flow with addresses and ports.
func parse(m []byte) (f Flow, protocol uint8, ok bool) {
	if len(m) < headerLen {
		return f, 0, false
	}
	var orig, reply tuple
	good := attributes(m[headerLen:], func(typ uint16, v []byte) bool {
		switch typ {
		case ctaTupleOrig:
			f.tuple = v
			orig, ok = parseTuple(v)
			return ok
		case ctaTupleReply:
			reply, ok = parseTuple(v)
			return ok
		case ctaZone:
			if len(v) == 2 {
				f.Zone = binary.BigEndian.Uint16(v)
			}
		case ctaID:
			f.id = v
		}
		return true
	})
	f.From, f.To, f.Answerer = orig.src, orig.dst, reply.src
	return f, orig.protocol, good && orig.dst.IsValid() && reply.src.IsValid()
}

// tuple is one direction of a flow.
type tuple struct {
	src, dst netip.AddrPort
	protocol uint8
}

func parseTuple(b []byte) (tuple, bool) {
	var src, dst netip.Addr
	var sport, dport uint16
	var t tuple
	ip := func(typ uint16, v []byte) bool {
		a, ok := netip.AddrFromSlice(v)
		switch typ {
		case ctaSrc4, ctaSrc6:
			src = a
		case ctaDst4, ctaDst6:
			dst = a
		default:
			ok = true
		}
		return ok
	}
	proto := func(typ uint16, v []byte) bool {
		switch {
		case typ == ctaProtoNum && len(v) == 1:
			t.protocol = v[0]
		case typ == ctaSport && len(v) == 2:
			sport = binary.BigEndian.Uint16(v)
		case typ == ctaDprt && len(v) == 2:
			dport = binary.BigEndian.Uint16(v)
		}
		return true
	}
	ok := attributes(b, func(typ uint16, v []byte) bool {
		switch typ {
		case ctaTupleIP:
			return attributes(v, ip)
		case ctaTupleProto:
			return attributes(v, proto)
		}
		return true
	})
	t.src, t.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return t, ok && src.IsValid() && dst.IsValid()
}

// attributes calls f for each attribute until it returns false; the result is false then, and for what is cut short.
func attributes(b []byte, f func(typ uint16, v []byte) bool) bool {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return false
		}
		if !f(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[4:n]) {
			return false
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return len(b) == 0
}
