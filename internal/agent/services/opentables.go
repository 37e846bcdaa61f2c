package services

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/agent/facts"
	"weft/internal/kernel/nft"
	values "weft/internal/nft"
)

// openTables opens nf_tables. A kernel without them is an error in mode nftables; in the other modes it is why there is no edge check.
func openTables(mode facts.ProxyMode) (c *nft.Conn, missing, err error) {
	c, err = nft.Open()
	if err == nil {
		if _, err = c.Outline(values.INet, values.TableName); err != nil {
			err = errors.Join(err, c.Close())
		}
	}
	if err != nil && mode != facts.NFTables && lacking(err) {
		return nil, fmt.Errorf("the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): %w", err), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil, nil
}

// lacking reports the kernel's answers to what it was built without.
func lacking(err error) bool {
	for _, e := range []unix.Errno{unix.EINVAL, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
