package rtnl

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// nhaID is the attribute with a next hop object's ID (linux/nexthop.h).
const nhaID = 1

// DropNexthops deletes the next hop objects of ours, and with each the routes that name it, and returns how many there were. It is for the
// end: after routes were deleted, or given to others by Apply, objects may be left that no route of ours tells of.
func (h *Handle) DropNexthops(ctx context.Context) (int, error) {
	release, err := h.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	var b wire.Buffer
	b.Begin(unix.RTM_GETNEXTHOP, 0, make([]byte, unix.SizeofNhmsg))
	b.End()
	msgs, err := h.conn.Dump(&b)
	if wire.IsErrno(err, unix.EOPNOTSUPP) { // a kernel before 5.3
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read next hop objects: %w", err)
	}
	n := 0
	b.Reset()
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofNhmsg || m.Data[2] != netstate.RouteProtocol {
			continue
		}
		for typ, v := range wire.Attrs(m.Data[unix.SizeofNhmsg:]) {
			if typ == nhaID && len(v) == 4 {
				encodeNexthop(&b, netstate.Del, netstate.Route{}, wire.U32(v), 0)
				n++
			}
		}
	}
	if n == 0 {
		return 0, nil
	}
	errs, err := h.conn.Batch(&b)
	if err != nil {
		return 0, fmt.Errorf("delete next hop objects: %w", err)
	}
	for _, err := range errs {
		if err != nil && !wire.IsErrno(err, unix.ENOENT) {
			return 0, fmt.Errorf("delete a next hop object: %w", err)
		}
	}
	return n, nil
}
