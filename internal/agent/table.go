package agent

import (
	"context"
)

// tableEngine is kernel/nft as the agent uses it.
type tableEngine interface{}

func (p *proxyLoop) openTable() error { return nil }

func (p *proxyLoop) watchTable(context.Context) (<-chan struct{}, error) { return nil, nil }

func (p *proxyLoop) applyTable(context.Context, rules) (int, error) { return 0, nil }

// text is the rules as their programs print them.
func (r rules) text() string { return r.XT.String() }
