package agent

import (
	"context"

	"weft/internal/kernel/nft"
	"weft/internal/kernel/xt"
	values "weft/internal/nft"
)

// watchRules watches table inet weft and the tables of iptables: where iptables is the nf_tables variant it tells of changes, of the legacy
// one their sizes are watched.
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
	legacy, err := xt.WatchLegacy(ctx)
	return append(out, trigger{legacy, byIPTables}), err
}
