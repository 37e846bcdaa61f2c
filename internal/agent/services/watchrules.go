package services

import (
	"context"

	"weft/internal/agent/loop"
	"weft/internal/kernel/nft"
	"weft/internal/kernel/xt"
	values "weft/internal/nft"
)

// watchRules watches table inet weft and the tables of iptables: where iptables is the nf_tables variant it tells of changes, of the legacy
// one their sizes are watched.
func watchRules(ctx context.Context, c *nft.Conn) ([]loop.Trigger, error) {
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
	out := []loop.Trigger{loop.On(changed[0], loop.ByKernel)}
	for _, ch := range changed[1:] {
		out = append(out, loop.On(ch, loop.ByIPTables))
	}
	legacy, err := xt.WatchLegacy(ctx)
	return append(out, loop.On(legacy, loop.ByIPTables)), err
}
