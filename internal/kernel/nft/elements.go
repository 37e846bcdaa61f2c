package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// maxReads is how often a set is read until what is read fits together.
const maxReads = 20

var errRebuilding = errors.New("the kernel rebuilds the set all the while")

// elements reads the elements of a set. A set that has grown a lot is rebuilt by the kernel a moment later; the parts of a list
// that is read meanwhile are counted from the beginning of another order each, so that some elements come twice and as many not at all.
func (c *Conn) elements(family nft.Family, table string, s *nft.Set) ([]nft.Element, error) {
	if c.whole != nil {
		c.whole(s.Name)
	}
	for range maxReads {
		out, err := c.readOnce(family, table, s)
		switch {
		case err != nil:
			return nil, err
		case s.Interval:
			list := nft.Set{Elements: out}
			list.Sort()
			return out, nil
		case !twice(out):
			return out, nil
		}
	}
	return nil, fmt.Errorf("elements of %s: %w", s.Name, errRebuilding)
}

// twice sorts the elements and reports whether one comes twice.
func twice(all []nft.Element) bool {
	slices.SortFunc(all, func(a, b nft.Element) int { return strings.Compare(string(a.Key), string(b.Key)) })
	for i := 1; i < len(all); i++ {
		if all[i].Key == all[i-1].Key {
			return true
		}
	}
	return false
}

// readOnce reads the elements of a set.
func (c *Conn) readOnce(family nft.Family, table string, s *nft.Set) ([]nft.Element, error) {
	r := elementReader{set: s}
	filter := func(b *buf) {
		b.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	}
	err := c.dump(unix.NFT_MSG_GETSETELEM, family, filter, func(m message) error {
		return attributes(m.data[nfgenmsg:], func(typ uint16, v []byte) error {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return attributes(v, func(_ uint16, v []byte) error { return r.element(v) })
		})
	})
	if err != nil {
		return nil, fmt.Errorf("elements of %s: %w", s.Name, err)
	}
	return r.result(), nil
}
