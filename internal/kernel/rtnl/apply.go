package rtnl

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// OpError is an op that failed.
type OpError struct {
	Op  netstate.Op
	Err error
}

// Error is the op's commands and the reason.
func (e *OpError) Error() string { return e.Op.String() + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *OpError) Unwrap() error { return e.Err }

// Reasons for which an op is not even tried.
var (
	ErrKind   = errors.New("not an object of rtnetlink")
	ErrNoLink = errors.New("no such link")
	ErrOthers = errors.New("link is not ours: delete it or choose another name")
)

// batchBytes is how much goes to the kernel in one datagram; it works a datagram off without letting others in.
const batchBytes = 16 << 10

// Apply does the ops in order. One that fails does not stop the others; the error joins an OpError for each, and for very many
// the first ones and their number. What is already as the op wants it is no failure.
func (h *Handle) Apply(ctx context.Context, ops []netstate.Op) error {
	if len(ops) == 0 {
		return nil
	}
	release, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	a := applier{h: h, ctx: ctx, indexes: map[string]int{}}
	for i, op := range ops {
		if _, isLink := op.Object.(netstate.Link); isLink {
			a.flush()
			a.done(op, a.link(op, ops[i+1:]))
			continue
		}
		for _, step := range op.Steps() {
			a.queue(step)
		}
	}
	a.flush()
	return a.err()
}

// applier is the work of one Apply.
type applier struct {
	h       *Handle
	ctx     context.Context
	indexes map[string]int // of links, as far as looked up
	buf     wire.Buffer
	queued  []request // those in buf
	failed  []error
	more    int   // failures not in failed
	broken  error // the connection's end
}

// maxErrors bounds the joined error.
const maxErrors = 20

func (a *applier) done(op netstate.Op, err error) {
	if err == nil || alreadySo(op, err) {
		a.h.note(op)
		return
	}
	if len(a.failed) >= maxErrors {
		a.more++
		return
	}
	a.failed = append(a.failed, &OpError{Op: op, Err: err})
}

// alreadySo reports whether the error says that there was nothing to do.
func alreadySo(op netstate.Op, err error) bool {
	if op.Verb == netstate.Del {
		return errors.Is(err, ErrNoLink) || wire.IsErrno(err, unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL)
	}
	a, ok := op.Object.(netstate.Addr)
	return ok && a.Prefix.Addr().Is4() && errors.Is(err, unix.EEXIST) // in IPv6 it may be there with another length
}

func (a *applier) err() error {
	errs := a.failed
	if a.more > 0 {
		errs = append(errs, fmt.Errorf("and %d more operations failed", a.more))
	}
	if len(errs) > 0 && a.ctx.Err() != nil {
		errs = append(errs, a.ctx.Err())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// alive returns why no more can be asked of the kernel, or nil.
func (a *applier) alive() error {
	if a.broken == nil {
		a.broken = a.ctx.Err()
	}
	return a.broken
}

// queue adds the op to the next batch.
func (a *applier) queue(op netstate.Op) {
	if !Applies(op.Object.Kind()) {
		a.done(op, ErrKind)
		return
	}
	if err := a.alive(); err != nil {
		a.done(op, err)
		return
	}
	index := 0
	if dev := op.Object.On(); dev != "" {
		var err error
		if index, err = a.index(dev); err != nil {
			a.done(op, err)
			return
		}
	}
	if !a.queueRoute(op, index) {
		encode(&a.buf, op, index)
		a.queued = append(a.queued, request{op: op})
	}
	if a.buf.Len() >= batchBytes {
		a.flush()
	}
}

// flush sends the batch.
func (a *applier) flush() {
	if len(a.queued) == 0 {
		return
	}
	errs, err := a.batch()
	queued := a.queued
	a.queued = nil
	a.buf.Reset()
	var refused error // of the next hop object that the next request is by
	for i, r := range queued {
		switch {
		case r.nexthop:
			if err == nil && r.op.Verb != netstate.Del {
				refused = errs[i]
			}
		case err != nil:
			a.done(r.op, err)
		case refused != nil:
			a.withoutNexthop(r.op, refused)
			refused = nil
		default:
			a.done(r.op, errs[i])
		}
	}
	a.queued = queued[:0]
}

func (a *applier) batch() ([]error, error) {
	if err := a.alive(); err != nil {
		return nil, err
	}
	errs, err := a.h.conn.Batch(&a.buf)
	a.broken = err
	return errs, err
}

// index looks the link's index up.
func (a *applier) index(dev string) (int, error) {
	if i, ok := a.indexes[dev]; ok {
		return i, nil
	}
	l, err := a.h.linkByName(dev)
	if err != nil {
		return 0, err
	}
	a.indexes[dev] = l.index
	return l.index, nil
}

// Link returns the link with the name, whoever made it. Its master and underlying device are left out. ok is false when there is none.
func (h *Handle) Link(ctx context.Context, name string) (l netstate.Link, ok bool, err error) {
	release, err := h.lock(ctx)
	if err != nil {
		return netstate.Link{}, false, err
	}
	defer release()
	found, err := h.linkByName(name)
	if errors.Is(err, ErrNoLink) {
		return netstate.Link{}, false, nil
	}
	return found.Link, err == nil, err
}

// linkByName reads one link.
func (h *Handle) linkByName(name string) (link, error) {
	var b wire.Buffer
	b.Begin(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg))
	b.Text(unix.IFLA_IFNAME, name)
	b.U32(unix.IFLA_EXT_MASK, skipStats)
	b.End()
	m, err := h.conn.Get(&b)
	if wire.IsErrno(err, unix.ENODEV, unix.EINVAL) { // EINVAL: a name no link can have
		return link{}, fmt.Errorf("link %s: %w", name, ErrNoLink)
	}
	if err != nil {
		return link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	l, ok := decodeLink(m)
	if !ok {
		return link{}, fmt.Errorf("link %s: %w", name, ErrNoLink)
	}
	return l, nil
}

// note keeps known true after an op.
func (h *Handle) note(op netstate.Op) {
	if op.Verb != netstate.Del {
		h.known.Add(op.Object)
		return
	}
	h.known.Remove(netstate.IDOf(op.Object))
	if l, ok := op.Object.(netstate.Link); ok {
		h.known = h.known.Select(func(o netstate.Object) bool { return o.On() != l.Name })
	}
}
