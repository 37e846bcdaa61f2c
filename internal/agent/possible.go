package agent

import (
	"context"

	"weft/internal/agent/facts"
	"weft/internal/agent/settings"
)

// possible refuses what this host can't do.
func (a *agent) possible(ctx context.Context, next *settings.Config) error {
	if err := a.proxy.Possible(ctx, facts.ProxyMode(next.ProxyMode)); err != nil {
		return err
	}
	a.checkRandomPorts(ctx, next)
	return nil
}
