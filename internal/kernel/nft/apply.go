package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// Refused is an object the kernel does not take. The rest of the ops was programmed.
type Refused struct {
	Op  nft.Op // the op; of elements only those refused
	Err error
}

// Error names the object and the kernel's reason.
func (r *Refused) Error() string { return fmt.Sprintf("apply %q: %v", r.Op.String(), r.Err) }

// Unwrap returns the kernel's reason, a unix.Errno.
func (r *Refused) Unwrap() error { return r.Err }

// maxRefused bounds how many refused objects Apply looks for before it gives up.
const maxRefused = 1000

// Apply performs the ops in one transaction: all of them take effect in the same moment. Where one object is refused the transaction
// is tried again without it, so that the rest is programmed, and a *Refused for each such object is in the error.
//
// A transaction larger than the socket's buffer (only without CAP_NET_ADMIN in the initial user namespace) becomes several, in the
// order of the ops, which Diff and Merge choose such that every prefix of them works.
func (c *Conn) Apply(ops []nft.Op) error {
	if len(ops) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return fmt.Errorf("apply nf_tables transaction: %w", unix.EBADF)
	}
	a := applier{c: c}
	if err := c.quietly(ops, func() error { return a.apply(units(ops)) }); err != nil {
		return fmt.Errorf("apply nf_tables transaction: %w", err)
	}
	return errors.Join(a.refused...)
}

type applier struct {
	c        *Conn
	refused  []error
	enlarged map[string]bool // the sets that got more room
}

// apply performs units, leaving out what is refused. Every round either ends, makes the units fewer or makes them smaller.
func (a *applier) apply(all []unit) error {
	for len(all) > 0 {
		bad, err := a.c.transact(all)
		switch {
		case err == nil && len(bad) == 0:
			return nil
		case errors.Is(err, unix.EMSGSIZE) && len(all) > 1:
			if err := a.apply(all[:len(all)/2]); err != nil {
				return err
			}
			all = all[len(all)/2:]
		case errors.Is(err, errWhole) && len(all) > 1:
			if err := a.halves(all); err != nil {
				return err
			}
			return nil
		default:
			if all, err = a.next(all, bad, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// next returns the units to try after some were refused, or the one that there was.
func (a *applier) next(all []unit, bad map[int]error, err error) ([]unit, error) {
	if again, err2 := a.enlarge(all, bad); again || err2 != nil {
		return all, err2
	}
	switch {
	case errors.Is(err, errWhole) && len(all) == 1:
		return a.without(all, map[int]error{0: err})
	case err != nil:
		return nil, err
	case aside(all, bad):
		rest, refused := setAside(all, bad)
		return refused, a.apply(rest)
	}
	return a.without(all, bad)
}

// asideFrom is how many elements a transaction has from which on the rest of it does not wait until the bad one is found.
const asideFrom = 20_000

// aside reports whether the refused units can wait until the rest is programmed: when only additions of elements were refused, on which
// nothing else in a transaction depends.
func aside(all []unit, bad map[int]error) bool {
	n := 0
	for _, u := range all {
		n += len(u.elements)
	}
	for i := range bad {
		if u := all[i]; u.op.Verb != nft.Add || u.op.Kind != nft.KindElements || len(u.elements) < 2 || 2*len(u.elements) > n {
			return false
		}
	}
	return n >= asideFrom && len(bad) < len(all)
}

// setAside splits the units into the rest and the refused ones.
func setAside(all []unit, bad map[int]error) (rest, refused []unit) {
	for i, u := range all {
		if bad[i] != nil {
			refused = append(refused, u)
		} else {
			rest = append(rest, u)
		}
	}
	return rest, refused
}

// halves performs a transaction that is refused as a whole in two, to find the part that is to blame.
func (a *applier) halves(all []unit) error {
	if err := a.apply(all[:len(all)/2]); err != nil {
		return err
	}
	return a.apply(all[len(all)/2:])
}

// pieces is into how many a refused unit of elements is cut to find the bad one.
const pieces = 16

// without returns the units without the refused ones, and those of many elements in pieces.
func (a *applier) without(all []unit, bad map[int]error) ([]unit, error) {
	out := make([]unit, 0, len(all)+pieces*len(bad))
	for i, u := range all {
		err, refused := bad[i]
		switch {
		case !refused:
			out = append(out, u)
		case len(u.elements) > 1:
			n := (len(u.elements) + pieces - 1) / pieces
			for part := range slices.Chunk(u.elements, n) {
				out = append(out, unit{op: u.op, elements: part})
			}
		default:
			op := *u.op
			if op.Kind == nft.KindElements {
				op.Set.Elements = u.elements
			}
			a.refused = append(a.refused, &Refused{op, err})
		}
	}
	if len(a.refused) > maxRefused {
		return nil, fmt.Errorf("more than %d objects refused: %w", maxRefused, errors.Join(a.refused[:10]...))
	}
	return out, nil
}

// errWhole says that the kernel refused a transaction without saying which message is to blame.
var errWhole = errors.New("transaction refused")

// transact performs units in one transaction and returns the refused ones. The kernel answers before the call that sends returns, so
// all answers are there to be read.
func (c *Conn) transact(all []unit) (bad map[int]error, err error) {
	t := newBatch(c.seq+1, all)
	c.seq = t.seq
	if len(t.bad) > 0 {
		return t.bad, nil
	}
	if err := c.drain(); err != nil {
		return nil, err
	}
	if err := c.send(t.b); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	bad, err = c.answers(t)
	if err == nil && len(bad) == 0 {
		c.commits++
	}
	return bad, err
}

// answers reads the kernel's answers to a transaction.
func (c *Conn) answers(t *batch) (bad map[int]error, err error) {
	bad = map[int]error{}
	for {
		b, err := c.receive(unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return bad, nil
		case errors.Is(err, unix.ENOBUFS):
			if len(bad) == 0 {
				return nil, fmt.Errorf("%w: too many errors", errWhole)
			}
			return bad, nil // the next round finds the others
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		}
		if err := split(b, func(m message) error { return t.answer(m, bad) }); err != nil {
			return nil, err
		}
	}
}

// answer notes a refusal.
func (t *batch) answer(m message, bad map[int]error) error {
	i := int(m.seq - t.first)
	if m.typ != unix.NLMSG_ERROR || i < 0 || i >= len(t.owner) {
		return nil
	}
	r := refused(m)
	if r == nil {
		return nil
	}
	if t.owner[i] < 0 { // the frame: the whole transaction
		if hopeless(r.errno) {
			return r
		}
		return fmt.Errorf("%w: %w", errWhole, r)
	}
	if (r.errno == unix.EMLINK || r.errno == unix.ELOOP) && len(bad) > 0 {
		return nil // one loop makes the kernel refuse all that comes behind it
	}
	if bad[t.owner[i]] == nil {
		bad[t.owner[i]] = r
	}
	return nil
}

// hopeless reports errors that no smaller transaction would avoid: no permission, no nf_tables, no memory.
func hopeless(e unix.Errno) bool {
	return e == unix.EPERM || e == unix.EOPNOTSUPP || e == unix.ENOMEM
}

// drain throws away what earlier calls left unread.
func (c *Conn) drain() error {
	for {
		if _, err := c.receive(unix.MSG_DONTWAIT); errors.Is(err, unix.EAGAIN) {
			return nil
		} else if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("receive: %w", err)
		}
	}
}
