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
	tables := []nft.TableRef{{Family: values.INet, Name: values.TableName}}
	for _, family := range []values.Family{values.IPv4, values.IPv6} {
		for _, table := range []string{"nat", "filter", "mangle", "raw"} {
			tables = append(tables, nft.TableRef{Family: family, Name: table})
		}
	}
	changed, err := c.WatchAll(ctx, tables...)
	if err != nil {
		return nil, err
	}
	out := []trigger{{changed[0], byKernel}}
	for _, ch := range changed[1:] {
		out = append(out, trigger{ch, byIPTables})
	}
	legacy, err := xt.WatchLegacy(ctx)
	return append(out, trigger{legacy, byIPTables}), err
}
