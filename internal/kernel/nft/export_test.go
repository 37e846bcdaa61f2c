package nft

import "weft/internal/nft"

// Meanwhile applies ops as Apply does and calls do before the watchers listen again.
func Meanwhile(c *Conn, ops []nft.Op, do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := applier{c: c}
	return c.quietly(ops, func() error {
		if err := a.apply(units(ops)); err != nil {
			return err
		}
		return do()
	})
}

// LookupFrom makes sets of that many planned elements large ones.
func LookupFrom(c *Conn, n int) { c.lookupFrom = n }

// Encode encodes ops as Apply does before it sends them.
func Encode(ops []nft.Op) { newBatch(0, units(ops)) }

// OnWhole calls f for each set that is read as a whole.
func OnWhole(c *Conn, f func(set string)) { c.whole = f }
