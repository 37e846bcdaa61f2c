package nft

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// A set whose size is given is a table of as many places in the kernel (nft_set_hash). One without is a table that grows as elements
// come (nft_set_rhash): in one large transaction it has to grow many times, which takes as long as all the rest. So a set that gets many
// elements when it is made gets a size, and a larger one when it is full.

// roomFrom is from how many elements on a new set gets a size.
const roomFrom = 4096

// room is a size for so many elements and half as many more: such that the kernel's table, 4/3 of it, is a power of two.
func room(elements int) uint32 {
	const most = 3 << 28
	n := 3 << 10
	for n < elements+elements/2 && n < most {
		n *= 2
	}
	return uint32(n)
}

// roomFor are the sizes for the sets that the ops make, by name; none for those that have one or get few elements.
func roomFor(ops []nft.Op) map[string]uint32 {
	made, n := map[string]bool{}, map[string]int{}
	for i := range ops {
		op := &ops[i]
		switch {
		case op.Verb != nft.Add:
		case op.Kind == nft.KindSet && fixed(&op.Set):
			made[setName(op)] = true
		case op.Kind == nft.KindElements && made[setName(op)]:
			n[setName(op)] += len(op.Set.Elements)
		}
	}
	out := map[string]uint32{}
	for name, n := range n {
		if n >= roomFrom && growing() {
			out[name] = room(n)
		}
	}
	return out
}

func setName(op *nft.Op) string { return string(op.Family) + " " + op.Table + " " + op.Set.Name }

// fixed reports whether a set may get a size: ranges are held in trees, and dynamic sets have one.
func fixed(s *nft.Set) bool { return s.Size == 0 && !s.Interval && !s.Dynamic && s.Timeout == 0 }

// growing reports whether the kernel can give a set that there is another size: since Linux 6.5.
func growing() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(u.Release[:]), 6, 5)
}

// atLeast compares a kernel's release ("6.18.44-fc") with a version.
func atLeast(release string, major, minor int) bool {
	number := func(s string) int {
		end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if end >= 0 {
			s = s[:end]
		}
		n, _ := strconv.Atoi(s)
		return n
	}
	first, rest, _ := strings.Cut(release, ".")
	have := number(first)
	return have > major || have == major && number(rest) >= minor
}

// enlarge gives the sets that the kernel calls full more room, and reports whether there is something to try again. It is a transaction of its
// own: a new size counts from its end on. A set gets more room once in a call of Apply: what does not fit then is refused.
func (a *applier) enlarge(all []unit, bad map[int]error) (bool, error) {
	coming := map[string]int{}
	var sets []*nft.Op
	for i, u := range all {
		if u.op.Kind != nft.KindElements || u.op.Verb == nft.Del || !fixed(&u.op.Set) || a.enlarged[setName(u.op)] {
			continue
		}
		name := setName(u.op)
		coming[name] += len(u.elements)
		if errors.Is(bad[i], unix.ENFILE) && (len(sets) == 0 || setName(sets[len(sets)-1]) != name) {
			sets = append(sets, u.op)
		}
	}
	if len(sets) == 0 || !growing() {
		return false, nil
	}
	ops := make([]nft.Op, len(sets))
	for i, s := range sets {
		size, err := a.c.size(s)
		if err != nil {
			return false, err
		}
		op := *s
		op.Verb, op.Kind = nft.Add, nft.KindSet
		op.Set.Elements, op.Set.Size = nil, room(int(size)+coming[setName(s)])
		ops[i] = op
		if a.enlarged == nil {
			a.enlarged = map[string]bool{}
		}
		a.enlarged[setName(s)] = true
	}
	refused, err := a.c.transact(units(ops))
	return err == nil && len(refused) == 0, err
}

// size asks for the size of a set.
func (c *Conn) size(op *nft.Op) (size uint32, err error) {
	if err := c.drain(); err != nil {
		return 0, err
	}
	c.seq++
	var b buf
	at := b.header(subsystem|unix.NFT_MSG_GETSET, 0, c.seq, families[op.Family])
	b.str(unix.NFTA_SET_TABLE, op.Table)
	b.str(unix.NFTA_SET_NAME, op.Set.Name)
	b.close(at)
	if err := c.send(b); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	d, err := c.receive(0)
	if err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	err = split(d, func(m message) error {
		if m.typ == unix.NLMSG_ERROR || len(m.data) < nfgenmsg {
			return fmt.Errorf("size of set %s: %w", op.Set.Name, refused(m))
		}
		a, _, err := parse(m.data[nfgenmsg:])
		if err != nil {
			return err
		}
		desc, _, err := parse(a[unix.NFTA_SET_DESC])
		size = uint32(number(desc[unix.NFTA_SET_DESC_SIZE]))
		return err
	})
	return size, err
}
