package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// BaseChain is a base chain of any table, without its rules.
type BaseChain struct {
	Family nft.Family
	Table  string
	nft.Chain
}

// String is the chain as messages name it: "table inet filter, chain forward".
func (b BaseChain) String() string {
	return fmt.Sprintf("table %s %s, chain %s", b.Family, b.Table, b.Name)
}

// BaseChains returns the base chains of all tables of families ip, ip6 and inet at the hook, those of others too.
func (c *Conn) BaseChains(hook nft.Hook) ([]BaseChain, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range readTries {
		var out []BaseChain
		err := c.dump(unix.NFT_MSG_GETCHAIN, "", nil, func(m message) error {
			a, _, err := parse(m.data[nfgenmsg:])
			if err != nil {
				return err
			}
			chain := decodeChain(&a)
			for _, f := range []nft.Family{nft.INet, nft.IPv4, nft.IPv6} {
				if families[f] == m.data[0] && chain.Base.Hook == hook {
					out = append(out, BaseChain{f, text(a[unix.NFTA_CHAIN_TABLE]), chain})
				}
			}
			return nil
		})
		if !errors.Is(err, errInterrupted) {
			if err != nil {
				return nil, fmt.Errorf("read the base chains at hook %s: %w", hook, err)
			}
			return out, nil
		}
	}
	return nil, fmt.Errorf("read the base chains at hook %s: %w, %d times", hook, errInterrupted, readTries)
}
