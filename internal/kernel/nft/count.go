package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// Counts returns how many packets the counters in each chain of the table have counted since their rules were programmed; chains
// without counters are left out. A table that does not exist has none.
func (c *Conn) Counts(family nft.Family, table string) (map[string]uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]uint64{}
	r := reader{c: c, family: family, table: table}
	filter := func(b *buf) { b.str(unix.NFTA_RULE_TABLE, table) }
	err := r.dump(unix.NFT_MSG_GETRULE, filter, func(a *attrs) error {
		if text(a[unix.NFTA_RULE_TABLE]) != table {
			return nil
		}
		all, err := parseExpressions(a[unix.NFTA_RULE_EXPRESSIONS])
		for _, e := range all {
			if e.name == "counter" {
				out[text(a[unix.NFTA_RULE_CHAIN])] += number(e.a[unix.NFTA_COUNTER_PACKETS])
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read counters of nf_tables table %s %s: %w", family, table, err)
	}
	return out, nil
}

// Members returns the keys that a dynamic set holds now. A set that does not exist has none.
func (c *Conn) Members(family nft.Family, table string, set nft.Set) ([]nft.Tuple, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.elements(family, table, &set)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read nf_tables set %s %s %s: %w", family, table, set.Name, err)
	}
	out := make([]nft.Tuple, len(all))
	for i, e := range all {
		out[i] = e.Key
	}
	return out, nil
}
