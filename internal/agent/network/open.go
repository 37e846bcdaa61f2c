package network

import (
	"context"
	"fmt"
	"log/slog"

	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/tunnels"
	"weft/internal/api"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

// Options say what the network is planned from.
type Options struct {
	Log      *slog.Logger
	Settings *facts.InForce
	Leases   Leases
	Cluster  func() (api.Snapshot, bool) // asked under backend l2; false: not known yet, so nothing may be removed
	Pods     *attachments.Book
	StateDir string
	// Seal has the rules in force that the network needs before it is planned. MayAttach says why no pod may get an address now.
	Seal      func(facts.Facts) error
	MayAttach func() error
	Healing   *loop.Healing // is told of repairs
}

// Open opens the host's network.
func Open(o Options) (*Loop, error) {
	d, err := newDataplane(o.Log, o.Settings, o.Leases, o.Cluster, o.Pods)
	if err != nil {
		return nil, err
	}
	d.mayAttach, d.tunnels, d.seal, d.healing = o.MayAttach, tunnels.New(o.Log, o.StateDir), o.Seal, o.Healing
	return d, nil
}

// Start runs the loop until ctx ends, and one for each pod: run starts what goes on beside the caller. The triggers are those for leases and the
// places of pods.
func (d *Loop) Start(ctx context.Context, run func(func() error), triggers ...loop.Trigger) error {
	run(func() error {
		<-ctx.Done()
		return d.closeTunnels()
	})
	changed, err := d.handle.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch the host's network: %w", err)
	}
	parameters, err := sysctl.Watch(ctx)
	if err != nil {
		return err
	}
	files, err := sysctl.WatchFiles(ctx)
	if err != nil {
		return err
	}
	wrong := make(chan struct{}, 1)
	run(func() error { return d.watchParameters(ctx, parameters, d.made, files, wrong) })
	d.life, d.spawn = ctx, run
	l := loop.Loop{Name: "network", Step: d.Step, Every: loop.FullCheck, Healing: d.healing, Log: d.log, Triggers: append(triggers,
		loop.On(changed, loop.ByKernel), loop.On(wrong, loop.ByKernel), loop.On(d.settings.Subscribe(), loop.ByHost), loop.On(d.again, loop.ByPlan))}
	run(func() error { return l.Run(ctx) })
	return nil
}

// Wants reports whether the object's place, by its kind and key, is one that the last step planned something for.
func (d *Loop) Wants(o netstate.Object) bool { return d.handle.Wants(netstate.IDOf(o)) }

// Ready is closed after the first step that worked.
func (d *Loop) Ready() <-chan struct{} { return d.ready }

// Looked receives after a look at the whole network.
func (d *Loop) Looked() <-chan struct{} { return d.whole }

// PodsChanged receives after a pod was attached or detached.
func (d *Loop) PodsChanged() <-chan struct{} { return d.podsSet }

// Retold receives after what the node can receive by changed, while the network changes its backend.
func (d *Loop) Retold() <-chan struct{} { return d.heard }
