package agent

import (
	"bytes"
	"context"
	"os"
	"time"

	"weft/internal/kernel/nft"
	values "weft/internal/nft"
)

// watchRules watches table inet weft and the tables of iptables: where iptables is the nf_tables variant it tells of changes.
func watchRules(ctx context.Context, c *nft.Conn) ([]trigger, error) {
	own, err := c.Watch(ctx, values.INet, values.TableName)
	if err != nil {
		return nil, err
	}
	out := []trigger{{own, byKernel}}
	for _, family := range []values.Family{values.IPv4, values.IPv6} {
		for _, table := range []string{"nat", "filter", "mangle", "raw"} {
			ch, err := c.Watch(ctx, family, table)
			if err != nil {
				return nil, err
			}
			out = append(out, trigger{ch, byIPTables})
		}
	}
	return out, nil
}

// legacyLists are where the kernel lists the tables of the legacy iptables that are in use in a network namespace.
var legacyLists = []string{"/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"}

// watchLegacy pokes changed when tables of the legacy iptables come into use or go. What changes in them the kernel tells nobody: the full
// check finds it.
func watchLegacy(ctx context.Context, changed chan<- struct{}) error {
	tick := time.NewTicker(parameterCheck)
	defer tick.Stop()
	before := legacyTables()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := legacyTables(); !bytes.Equal(before, now) {
			before = now
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}

func legacyTables() []byte {
	var all []byte
	for _, path := range legacyLists {
		text, err := os.ReadFile(path)
		if err == nil { // else the kernel has no such tables
			all = append(append(all, text...), '\n')
		}
	}
	return all
}
