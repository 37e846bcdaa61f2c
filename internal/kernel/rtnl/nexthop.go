package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// The kernel finds out whether a route's next hop is one it has (struct fib_info) by a hash that does not look at the gateway: adding the
// nth of n routes with gateways of their own by one device walks the n-1 before it, and 20,000 take seconds. A route that names a next hop
// object (ip-nexthop(8), Linux 5.3) is found by that object's ID. So a tunnel's route is made together with such an object, whose ID
// follows from the destination; the route reads back with gateway and device as one made without.

// rtaNHID is the attribute of a route that names its next hop object (linux/rtnetlink.h).
const rtaNHID = 30

// nexthopID is the ID of the route's next hop object; ok is false for routes that have none: all but the main table's IPv4 routes to a
// gateway on the other side of a tunnel. The objects of a device go when it loses its carrier, which a tunnel device never does.
func nexthopID(r netstate.Route) (id uint32, ok bool) {
	bits := r.Dst.Bits()
	if !r.Onlink || !r.Via.Is4() || !r.Dst.Addr().Is4() || bits < 1 || bits > 27 || r.Dst != r.Dst.Masked() ||
		r.Type != "" || r.Table != 0 || r.Metric != 0 || r.MTU != 0 || r.Src.IsValid() || r.Scope != "" || r.Proto != 0 {
		return 0, false
	}
	b := r.Dst.Addr().As4()
	return binary.BigEndian.Uint32(b[:]) | uint32(bits), true // the low five bits of the address are 0
}

// encodeNexthop adds the request for a route's next hop object.
func encodeNexthop(b *wire.Buffer, verb netstate.Verb, r netstate.Route, id uint32, index int) {
	header := make([]byte, unix.SizeofNhmsg)
	if verb == netstate.Del {
		b.Begin(unix.RTM_DELNEXTHOP, 0, header)
		b.U32(unix.NHA_ID, id)
		b.End()
		return
	}
	header[0], header[2] = unix.AF_INET, netstate.RouteProtocol
	wire.PutU32(header[4:], unix.RTNH_F_ONLINK)
	b.Begin(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, header)
	b.U32(unix.NHA_ID, id)
	b.U32(unix.NHA_OIF, uint32(index))
	b.Addr(unix.NHA_GATEWAY, r.Via)
	b.End()
}

// encodeByNexthop adds the request for a route by its next hop object. One to delete is told by its destination alone: so it does not
// matter whether it was made with such an object.
func encodeByNexthop(b *wire.Buffer, typ, flags uint16, r netstate.Route, id uint32) {
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1], header[4], header[5] = unix.AF_INET, byte(r.Dst.Bits()), unix.RT_TABLE_MAIN, netstate.RouteProtocol
	header[7] = unix.RTN_UNICAST
	b.Begin(typ, flags, header)
	b.Addr(unix.RTA_DST, r.Dst.Addr())
	if typ == unix.RTM_NEWROUTE {
		b.U32(rtaNHID, id)
	}
	b.End()
}

// queueRoute adds the requests for a route with a next hop object; ok is false when the route has none.
func (a *applier) queueRoute(op netstate.Op, index int) (ok bool) {
	r, is := op.Object.(netstate.Route)
	id, ok := nexthopID(r)
	if !is || !ok || a.h.plain {
		return false
	}
	if op.Verb == netstate.Del {
		encodeByNexthop(&a.buf, unix.RTM_DELROUTE, 0, r, id)
		encodeNexthop(&a.buf, op.Verb, r, id, index)
		a.queued = append(a.queued, request{op: op}, request{op: op, nexthop: true})
		return true
	}
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if op.Verb == netstate.Set {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	encodeNexthop(&a.buf, op.Verb, r, id, index)
	encodeByNexthop(&a.buf, unix.RTM_NEWROUTE, flags, r, id)
	a.queued = append(a.queued, request{op: op, nexthop: true}, request{op: op})
	return true
}

// request is a message of a batch.
type request struct {
	op      netstate.Op
	nexthop bool // it is about the next hop object of the op's route, which a request beside it is about
}

// withoutNexthop does the op, whose next hop object the kernel refused, without one.
func (a *applier) withoutNexthop(op netstate.Op, refused error) {
	if wire.IsErrno(refused, unix.EOPNOTSUPP) {
		a.h.plain = true // a kernel before 5.3
	}
	index, err := a.index(op.Object.On())
	if err != nil {
		a.done(op, err)
		return
	}
	var b wire.Buffer
	encode(&b, op, index)
	a.done(op, a.one(&b))
}

// nexthopNews reports whether somebody else changed a next hop object of ours; the routes by it went or changed with it, of which the
// kernel says nothing.
func (h *Handle) nexthopNews(m wire.Message) bool {
	return len(m.Data) > 2 && m.Data[2] == netstate.RouteProtocol && m.Port != h.conn.Port()
}
