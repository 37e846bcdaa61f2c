package nft

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// ownGenerations are the generations of the ruleset that programs made for us, which watchers are not told of.
type ownGenerations struct {
	mu  sync.Mutex // held while such a program runs
	all map[uint32]bool
}

// maxOwn bounds how many are remembered: an event that comes later than that many counts as somebody else's.
const maxOwn = 1000

// Own calls do, which has another program make one transaction for us, as iptables-restore: watchers are told nothing of it. When there was
// not exactly one transaction meanwhile nobody knows whose they were, and watchers are told.
func (c *Conn) Own(do func() error) error {
	c.own.mu.Lock()
	defer c.own.mu.Unlock()
	before, err1 := c.Generation()
	err := do()
	after, err2 := c.Generation()
	if err1 != nil || err2 != nil || after-before != 1 {
		return err
	}
	if c.own.all == nil || len(c.own.all) >= maxOwn {
		c.own.all = map[uint32]bool{}
	}
	c.own.all[after] = true
	return err
}

// made reports whether a generation was made for us. While a program makes one it waits for the answer.
func (o *ownGenerations) made(generation uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[generation]
}

// Generation is the number of the ruleset's generation: every transaction of anybody adds one.
func (c *Conn) Generation() (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation()
}

// generationOf is the number in the message that ends a transaction.
func generationOf(m message) (n uint32) {
	if len(m.data) < nfgenmsg {
		return 0
	}
	_ = attributes(m.data[nfgenmsg:], func(typ uint16, v []byte) error {
		if typ == unix.NFTA_GEN_ID && len(v) >= 4 {
			n = binary.BigEndian.Uint32(v)
		}
		return nil
	})
	return n
}
