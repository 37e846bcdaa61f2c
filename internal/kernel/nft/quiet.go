package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// The kernel makes an event of every element that a transaction adds, in the transaction, as soon as anybody listens: with a hundred
// thousand elements that takes longer than adding them. So our own watchers do not listen while we make a large one; the number of
// the ruleset's generation tells afterwards whether others have changed something meanwhile.

// largeTransaction is from how many objects on that pays.
const largeTransaction = 2000

// watchers are those of a Conn.
type watchers struct {
	mu  sync.Mutex
	all map[*watcher]bool
}

func (w *watchers) add(x *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*watcher]bool{}
	}
	w.all[x] = true
}

func (w *watchers) remove(x *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, x)
}

// listen has the kernel tell of changes, or not.
func (w *watcher) listen(yes bool) error {
	option := unix.NETLINK_ADD_MEMBERSHIP
	if !yes {
		option = unix.NETLINK_DROP_MEMBERSHIP
	}
	var err error
	err2 := w.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, option, groupNFTables) })
	return errors.Join(err, err2)
}

// quietly calls apply while the Conn's watchers do not listen, when the ops are many. Watchers are told of a change when the ruleset is of
// another generation afterwards than our commits explain.
func (c *Conn) quietly(ops []nft.Op, apply func() error) error {
	n := 0
	for i := range ops {
		n += ops[i].Count()
	}
	c.watchers.mu.Lock()
	defer c.watchers.mu.Unlock()
	if n < largeTransaction || len(c.watchers.all) == 0 {
		return apply()
	}
	var quiet []*watcher
	for w := range c.watchers.all {
		if w.listen(false) == nil {
			quiet = append(quiet, w)
		}
	}
	before, err1 := c.generation()
	c.commits = 0
	err := apply()
	var deaf error
	for _, w := range quiet {
		deaf = errors.Join(deaf, w.listen(true))
	}
	after, err2 := c.generation()
	if err1 != nil || err2 != nil || after-before != c.commits {
		for _, w := range quiet {
			w.tell()
		}
	}
	if deaf != nil {
		deaf = fmt.Errorf("watch nf_tables again: %w", deaf)
	}
	return errors.Join(err, deaf)
}

// generation is the number of the ruleset's generation: every transaction of anybody adds one.
func (c *Conn) generation() (uint32, error) {
	if err := c.drain(); err != nil {
		return 0, err
	}
	c.seq++
	var b buf
	b.close(b.header(subsystem|unix.NFT_MSG_GETGEN, 0, c.seq, unix.AF_UNSPEC))
	if err := c.send(b); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	d, err := c.receive(0)
	if err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	n, found := uint32(0), false
	err = split(d, func(m message) error {
		if m.seq != c.seq || m.typ != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(m.data) < nfgenmsg {
			return nil
		}
		return attributes(m.data[nfgenmsg:], func(typ uint16, v []byte) error {
			if typ == unix.NFTA_GEN_ID && len(v) >= 4 {
				n, found = binary.BigEndian.Uint32(v), true
			}
			return nil
		})
	})
	if err == nil && !found {
		err = errMalformed
	}
	return n, err
}
