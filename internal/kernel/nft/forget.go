package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// Elements reads the elements of a set or map; of a dynamic one those that packets have added.
func (c *Conn) Elements(family nft.Family, table string, s nft.Set) ([]nft.Element, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range readTries {
		all, err := c.elements(family, table, &s)
		if errors.Is(err, errInterrupted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read nf_tables table %s %s: %w", family, table, err)
		}
		return all, nil
	}
	return nil, fmt.Errorf("read elements of %s: %w, %d times", s.Name, errInterrupted, readTries)
}

// Forget deletes the elements of a dynamic set or map for which gone is true and returns their number. A set that is not there holds
// none.
func (c *Conn) Forget(family nft.Family, table string, s nft.Set, gone func(nft.Element) bool) (int, error) {
	all, err := c.Elements(family, table, s)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s.Elements = slices.DeleteFunc(all, func(e nft.Element) bool { return !gone(e) })
	if len(s.Elements) == 0 {
		return 0, nil
	}
	err = c.Apply([]nft.Op{{Verb: nft.Del, Kind: nft.KindElements, Family: family, Table: table, Set: s}})
	var r *Refused
	if errors.As(err, &r) && r.Err != nil && errors.Is(r.Err, unix.ENOENT) {
		err = nil // timed out meanwhile
	}
	return len(s.Elements), err
}
