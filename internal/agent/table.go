package agent

import (
	"context"
	"fmt"

	"weft/internal/nft"
)

// tableEngine is kernel/nft as the agent uses it.
type tableEngine interface {
	Read(family nft.Family, name string) (*nft.Table, error)
	Apply(ops []nft.Op) error
}

// applyTable brings table inet weft to the plan: in the other modes there is none.
func (p *proxyLoop) applyTable(_ context.Context, want rules) (int, error) {
	n, err := p.tableOnce(want)
	if err != nil || n == 0 {
		return n, err
	}
	ops, err := p.tableDiff(want)
	if err == nil && len(ops) > 0 {
		err = fmt.Errorf("read back: %d objects of table inet weft are not as planned, the first: %s", len(ops), ops[0])
	}
	return n, err
}

func (p *proxyLoop) tableOnce(want rules) (int, error) {
	ops, err := p.tableDiff(want)
	if err != nil || len(ops) == 0 {
		return 0, err
	}
	n := 0
	for _, op := range ops {
		n += op.Count()
		p.log.Debug("op", "what", "nftables", "op", op.String())
	}
	p.log.Info("applied", "what", "nftables", "ops", n)
	return n, p.nft.Apply(ops)
}

func (p *proxyLoop) tableDiff(want rules) ([]nft.Op, error) {
	have, err := p.nft.Read(nft.INet, nft.TableName)
	if err != nil {
		return nil, fmt.Errorf("read table inet weft: %w", err)
	}
	if want.Table == nil {
		if have == nil {
			return nil, nil
		}
		return []nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}}, nil
	}
	return nft.Diff(*want.Table, have), nil
}
