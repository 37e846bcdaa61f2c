package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// The kernel answers a request for all elements of a set in pieces of 32 KiB and goes through the set from its beginning for each, so that
// what it costs grows with the square of their number: with half a million elements many seconds. A question for elements by key costs
// the same for each. So large sets are asked for the elements that are planned, and how many elements there are tells whether
// there are others.

const (
	// lookupFrom is how many elements a plan has in a set from which on it is asked for them by key; about there both cost the same.
	lookupFrom = 20_000
	// asked is how many elements are asked for in one go: few, so that the kernel takes the same memory for the answers again and again.
	asked = 128
	// setCount is NFTA_SET_COUNT: how many elements there are. Linux 6.18 tells, older kernels may not.
	setCount = 20
	// catchAll is NFT_SET_ELEM_CATCHALL: the element that is in force for keys that no other has. It is not counted.
	catchAll = 2
)

// span is a run of elements, by index.
type span struct{ from, to int }

// lookup asks for the elements of a set by key.
type lookup struct {
	c      *Conn
	family nft.Family
	table  string
	want   *nft.Set

	b       buf
	todo    []span // to be asked for, the last one first
	chunk   int    // most keys of one message
	sent    []span // one for each message of this round
	first   uint32 // sequence number of the first of them
	got     int    // answers in this round
	missing []int
	other   map[int]nft.Element // of another value in the kernel
	elementReader
}

// lookUp asks for the wanted elements of a set. Two sockets ask for a half each.
func (c *Conn) lookUp(family nft.Family, table string, want *nft.Set) (*lookup, error) {
	n := len(want.Elements)
	l := newLookup(c, family, table, want, span{0, n / 2})
	twin := newLookup(c.twin, family, table, want, span{n / 2, n})
	done := make(chan error, 1)
	go func() { done <- twin.run() }()
	if err := errors.Join(l.run(), <-done); err != nil {
		return nil, fmt.Errorf("elements of %s: %w", want.Name, err)
	}
	l.missing = append(l.missing, twin.missing...)
	maps.Copy(l.other, twin.other)
	return l, nil
}

func newLookup(c *Conn, family nft.Family, table string, want *nft.Set, all span) *lookup {
	l := &lookup{c: c, family: family, table: table, want: want, chunk: asked, todo: []span{all}, other: map[int]nft.Element{}}
	l.set = want
	return l
}

// run asks until everything is answered.
func (l *lookup) run() error {
	if err := l.c.drain(); err != nil {
		return err
	}
	for len(l.todo) > 0 {
		if err := l.round(); err != nil {
			return err
		}
	}
	return nil
}

// round asks for some elements. A message ends at the first key that is not there; the keys behind it are asked for again.
func (l *lookup) round() error {
	l.questions()
	lost, err := l.c.ask(l.b, l.answer)
	if err != nil {
		return err
	}
	if lost && l.got == 0 && l.chunk == 1 {
		return fmt.Errorf("receive: %w", unix.ENOBUFS)
	}
	l.chunk = min(2*l.chunk, asked)
	for _, s := range slices.Backward(l.sent) {
		if s.from < s.to {
			l.todo = append(l.todo, s)
			l.chunk = max(1, l.chunk/4)
		}
	}
	return nil
}

// questions takes what is asked for in this round out of what is to be.
func (l *lookup) questions() {
	l.sent, l.first, l.got = l.sent[:0], l.c.seq+1, 0
	l.b = l.b[:0]
	for n := 0; n < asked && len(l.todo) > 0; {
		last := &l.todo[len(l.todo)-1]
		s := span{last.from, min(last.to, last.from+min(l.chunk, asked-n))}
		if last.from = s.to; last.from == last.to {
			l.todo = l.todo[:len(l.todo)-1]
		}
		n += s.to - s.from
		l.c.seq++
		l.b.question(l.c.seq, l.family, l.table, l.want, l.want.Elements[s.from:s.to])
		l.sent = append(l.sent, s)
	}
}

// question appends a message that asks for elements.
func (b *buf) question(seq uint32, family nft.Family, table string, s *nft.Set, elements []nft.Element) {
	at := b.header(subsystem|unix.NFT_MSG_GETSETELEM, 0, seq, families[family])
	b.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	list := b.begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for i := range elements {
		at := b.begin(unix.NFTA_LIST_ELEM)
		b.tuple(unix.NFTA_SET_ELEM_KEY, elements[i].Key, s.Key)
		b.end(at)
	}
	b.end(list)
	b.close(at)
}

// catchAll appends the element that is in force for keys that no other has.
func (b *buf) catchAll() {
	at := b.begin(unix.NFTA_LIST_ELEM)
	b.u32(unix.NFTA_SET_ELEM_FLAGS, catchAll)
	b.end(at)
}

// answer notes an element, or that there is none. Each moves the beginning of its message's span.
func (l *lookup) answer(m message) error {
	i := int(m.seq - l.first)
	if i < 0 || i >= len(l.sent) {
		return nil
	}
	s := &l.sent[i]
	if s.from >= s.to {
		return errMalformed
	}
	switch {
	case m.typ == unix.NLMSG_ERROR:
		switch r := refused(m); {
		case r == nil || r.errno == unix.ENOBUFS: // asked for again
			return nil
		case r.errno != unix.ENOENT:
			return r
		}
		l.missing = append(l.missing, s.from)
	case len(m.data) < nfgenmsg:
		return errMalformed
	default:
		if err := l.compare(s.from, m.data[nfgenmsg:]); err != nil {
			return err
		}
	}
	s.from++
	l.got++
	return nil
}

// compare notes the element of an answer when it is not as wanted.
func (l *lookup) compare(i int, b []byte) error {
	want := &l.want.Elements[i]
	return attributes(b, func(typ uint16, v []byte) error {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return attributes(v, func(_ uint16, v []byte) error {
			if l.same(want, v) {
				return nil
			}
			l.out = l.out[:0]
			if err := l.element(v); err != nil {
				return err
			}
			if len(l.out) != 1 || l.out[0].Key != want.Key {
				return errMalformed
			}
			if l.out[0] != *want {
				l.other[i] = l.out[0]
			}
			return nil
		})
	})
}

// same reports whether the element in an answer is the wanted one; false also where that takes a closer look.
func (l *lookup) same(want *nft.Element, v []byte) bool {
	if l.want.Verdicts || want.KeyEnd != "" {
		return false
	}
	key, data := false, len(want.Data) == 0
	err := attributes(v, func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			key = string(plain(v)) == string(want.Key)
		case unix.NFTA_SET_ELEM_DATA:
			data = string(plain(v)) == string(want.Data)
		}
		return nil
	})
	return err == nil && key && data
}

// found are the wanted elements without the missing ones, and with the kernel's values.
func (l *lookup) found() []nft.Element {
	slices.Sort(l.missing)
	out := make([]nft.Element, 0, len(l.want.Elements)-len(l.missing))
	missing := l.missing
	for i := range l.want.Elements {
		if len(missing) > 0 && missing[0] == i {
			missing = missing[1:]
			continue
		}
		e, ok := l.other[i]
		if !ok {
			e = l.want.Elements[i]
		}
		out = append(out, e)
	}
	return out
}

// differing are the elements that are not in the kernel as wanted: as they are wanted, and as those that are there are.
func (l *lookup) differing() (want, have []nft.Element) {
	for _, i := range l.missing {
		want = append(want, l.want.Elements[i])
	}
	for i, e := range l.other {
		want, have = append(want, l.want.Elements[i]), append(have, e)
	}
	return want, have
}

// count asks how many elements a set has, without the one for all other keys, and whether it has that one. known is false when the kernel does
// not tell.
func (c *Conn) count(family nft.Family, table string, s *nft.Set) (n int, all, known bool, err error) {
	if err := c.drain(); err != nil {
		return 0, false, false, err
	}
	var b buf
	c.seq += 2
	set, element := c.seq-1, c.seq
	at := b.header(subsystem|unix.NFT_MSG_GETSET, 0, set, families[family])
	b.str(unix.NFTA_SET_TABLE, table)
	b.str(unix.NFTA_SET_NAME, s.Name)
	b.close(at)
	at = b.header(subsystem|unix.NFT_MSG_GETSETELEM, 0, element, families[family])
	b.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	list := b.begin(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	b.catchAll()
	b.end(list)
	b.close(at)
	_, err = c.ask(b, func(m message) error {
		switch {
		case m.typ == unix.NLMSG_ERROR && m.seq == set:
			if r := refused(m); r != nil {
				return r
			}
		case m.typ == unix.NLMSG_ERROR && m.seq == element:
			// there is none, or the kernel knows of none (before Linux 5.13)
		case len(m.data) < nfgenmsg:
			return errMalformed
		case m.seq == set:
			a, _, err := parse(m.data[nfgenmsg:])
			n, known = int(number(a[setCount])), a[setCount] != nil
			return err
		case m.seq == element:
			all = true
		}
		return nil
	})
	if err != nil {
		return 0, false, false, fmt.Errorf("count elements of %s: %w", s.Name, err)
	}
	return n, all, known, nil
}

// Len returns how many elements a set has. Where the kernel does not tell it reads them.
func (c *Conn) Len(family nft.Family, table string, s nft.Set) (int, error) {
	c.mu.Lock()
	n, all, known, err := c.count(family, table, &s)
	c.mu.Unlock()
	if err != nil || known && !all {
		return n, err
	}
	list, err := c.Elements(family, table, s)
	return len(list), err
}
