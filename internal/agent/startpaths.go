package agent

import (
	"context"
	"net/netip"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/paths"
	"weft/internal/kernel/pmtu"
)

// openPaths reads what was known of paths before.
func (a *agent) openPaths() error {
	var err error
	a.paths, err = paths.New(a.log, a.cfg.MTUProbe, filepath.Join(a.cfg.RunDir, "paths.json"))
	return err
}

// startPaths runs the probing of the paths to the other nodes.
func (a *agent) startPaths(ctx context.Context, g *errgroup.Group, leases <-chan struct{}) {
	if a.paths == nil {
		return
	}
	p, err := pmtu.Open()
	if err != nil {
		a.log.Warn("the MTU of paths is not probed: the interface's is believed in", "err", err)
		return
	}
	look := func() (facts.Facts, map[netip.Addr]string, bool) {
		own, ok := a.leases.Own()
		f := a.settings.Facts()
		return f, paths.Peers(f, own, a.leases.Leases()), ok
	}
	g.Go(func() error {
		<-ctx.Done()
		return p.Close()
	})
	facts := a.settings.Subscribe()
	g.Go(func() error {
		return a.paths.Run(ctx, p, look, loop.On(leases, loop.ByPlan), loop.On(facts, loop.ByHost))
	})
}
