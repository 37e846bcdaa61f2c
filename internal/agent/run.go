// Package agent is the node agent: it holds the node's lease, keeps overlay, pod attachments and service rules in the kernel
// as planned, and runs the node's pods. The packages below it do that; this one wires them.
//
// Floor 4, programs.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/leases"
	"weft/internal/agent/loop"
	"weft/internal/agent/network"
	"weft/internal/agent/paths"
	"weft/internal/agent/rundir"
	"weft/internal/agent/services"
	"weft/internal/agent/settings"
	"weft/internal/agent/status"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/netstate"
	"weft/internal/store/kube"
)

// agent is the composed program.
type agent struct {
	cfg            settings.Config // as it was at the start
	live           *settings.Live  // what may change
	log            *slog.Logger
	settings       facts.InForce
	macs           map[string]string // of VTEP devices, by name
	bridgeMAC      string            // of --bridge as it was at the start
	hashless       hashless          // whether the kernel can hash
	leases         leaseSource
	foreign        []api.Lease                 // leases of others as they were at the start, before there is leases
	network        func() (lease.Config, bool) // the configuration in the store, once there is one
	networkChanged <-chan struct{}             // nil: it never does
	ownChanged     <-chan struct{}             // the node's own lease changed; nil: the leases' trigger tells
	announceSelf   func(self api.Lease) error  // tells the others what the node is now
	underlayLost   reporting                   // why the underlay is not there
	stuck          atomic.Pointer[string]      // why the host or the configuration is not followed, nil: it is
	doubted        []string                    // what was said of the configuration in force
	paths          *paths.Paths                // what is known of the paths to the other nodes, nil with --mtu-probe=0
	badPublic      string                      // why the node's annotations of its public address are not used
	announced      api.Lease                   // what announceSelf last told
	kube           *kube.Store                 // nil without --kubeconfig
	avoidRoutes    func([]claim.HostRoute)     // tells the store of leases what the host reaches by itself
	leaseReport    func(time.Time) (s leases.Status, believes bool)
	pathless       leases.Pathless
	watch          *kube.Watch
	// clusterChanged are the watch's triggers, nil without --kubeconfig: for services, for pods' places, for leases, for the public
	// addresses that annotations ask for, for what was written to the node. Only the first one tells of services.
	clusterChanged []<-chan struct{}
	pods           *attachments.Book
	data           *network.Loop
	subnetEnv      envFile
	noRoom         int // what connection tracking could not be raised to, so that it is said once
	healing        loop.Healing
	proxy          *services.Loop
}

// gcPercent keeps the heap small: an agent is idle nearly always, and what it holds of a large network is long-lived.
const gcPercent = 40

// Run is the agent until ctx ends. What it made in the kernel stays when it returns.
func Run(ctx context.Context, cfg settings.Config, log *slog.Logger) error {
	first, err := cfg.AtStart()
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	cfg = first.Config
	a := &agent{cfg: cfg, log: log, macs: map[string]string{}, live: settings.NewLive(first)}
	if err := makeDirs(cfg); err != nil {
		return err
	}
	unlock, err := rundir.Lock(filepath.Join(cfg.RunDir, "agent.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkPorts(ctx, cfg); err != nil {
		return err
	}
	a.checkRandomPorts(ctx, &a.live.Get().Config)
	g, ctx := errgroup.WithContext(ctx)
	if err := a.open(ctx, g); err != nil {
		return err
	}
	if err := a.start(ctx, g); err != nil {
		return err
	}
	return g.Wait()
}

func makeDirs(cfg settings.Config) error {
	for _, d := range []struct{ flag, dir string }{{"--run-dir", cfg.RunDir}, {"--state-dir", cfg.StateDir}} {
		err := os.MkdirAll(d.dir, 0o755)
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s=%s: %w: run as root, or give a directory of your own", d.flag, d.dir, err)
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", d.flag, d.dir, err)
		}
	}
	return nil
}

// open finds out about the host, connects to the stores and waits for the node's subnet.
func (a *agent) open(ctx context.Context, g *errgroup.Group) error {
	klog.SetSlogLogger(a.log)
	if err := a.meetBridge(ctx); err != nil {
		return err
	}
	if err := a.openPaths(); err != nil {
		return err
	}
	f, err := a.waitUnderlay(ctx, a.look)
	if err != nil {
		return err
	}
	if a.cfg.Kubeconfig != "" {
		if a.kube, err = kube.Open(a.cfg.Kubeconfig, a.log); err != nil {
			return err
		}
		a.watch = a.kube.Watch(ctx, kube.WatchOptions{PodsOf: a.cfg.NodeName})
		go listAtEase(ctx, a.watch.Synced())
		a.clusterChanged = append([]<-chan struct{}{a.watch.Changed()}, split(ctx, a.watch.Moved(), 4)...)
		if f, err = a.lookAgain(ctx, f); err != nil {
			return err
		}
	}
	a.settings.Set(facts.Setting{Facts: f})
	network, err := a.openLeases(ctx, g)
	if err != nil {
		return err
	}
	next, err := a.configureAtStart(ctx, network)
	if err != nil {
		return err
	}
	a.settings.Set(next)
	a.doubt(next.Facts)
	a.nameIdle(next.Facts, next.Masq)
	a.pods, err = attachments.Open(filepath.Join(a.cfg.RunDir, "attachments.json"))
	return err
}

// checkRanges refuses a service range that lies in the pod network: a packet could be for either.
func (a *agent) checkRanges(c lease.Config) error {
	for _, n := range facts.Valid(c.V4.Network, c.V6.Network) {
		if a.cfg.ServiceCIDR().IsValid() && n.Overlaps(a.cfg.ServiceCIDR()) {
			return fmt.Errorf("--service-cluster-ip-range=%s overlaps the pod network %s: choose another range for the services", a.cfg.ServiceCIDR(), n)
		}
	}
	return nil
}

// start makes the loops and runs them.
func (a *agent) start(ctx context.Context, g *errgroup.Group) error {
	leaseChanged := split(ctx, a.leases.Changed(), 5)
	if err := a.openRules(ctx, g); err != nil {
		return err
	}
	if err := a.startNetwork(ctx, g, leaseChanged[0]); err != nil {
		return err
	}
	if err := a.startServices(ctx, g, leaseChanged[1]); err != nil {
		return err
	}
	if a.cfg.File != "" {
		g.Go(func() error { return a.live.Follow(ctx, a.cfg, a.log, a.possible) })
	}
	if err := a.startFollow(ctx, g); err != nil {
		return err
	}
	if err := a.startRoutes(ctx, g); err != nil {
		return err
	}
	changed := a.settings.Subscribe()
	g.Go(func() error { return a.pathless.Watch(ctx, a.log, a.leases, &a.settings, leaseChanged[3], changed) })
	renewed := a.startRenewed(ctx, g)
	if a.cfg.KubeSubnetManager && a.cfg.SetNetworkUnavailable {
		g.Go(func() error { return a.keepCondition(ctx, renewed[0]) })
	}
	own := leaseChanged[2]
	if a.ownChanged != nil {
		own = a.ownChanged
	}
	a.startPaths(ctx, g, leaseChanged[4])
	facts := a.settings.Subscribe()
	g.Go(func() error {
		return a.announce(ctx, loop.On(own, loop.ByPlan), loop.On(facts, loop.ByHost), loop.On(a.data.PodsChanged(), loop.ByPlan), loop.On(renewed[1], loop.ByTime))
	})
	g.Go(func() error { return a.giveBack(ctx) })
	g.Go(func() error { return status.Serve(ctx, a, a.cfg.RunDir, a.cfg.HealthzBind, a.cfg.MetricsBind) })
	if a.kube != nil && a.cfg.PodRuntime == "process" {
		g.Go(func() error { return a.runNode(ctx) })
	}
	return nil
}

// startNetwork runs the loop of links, addresses, routes, neighbours and parameters.
func (a *agent) startNetwork(ctx context.Context, g *errgroup.Group, leases <-chan struct{}) error {
	var err error
	a.data, err = network.Open(network.Options{
		Log: a.log, Settings: &a.settings, Leases: a.leases, Cluster: a.cluster, Pods: a.pods, StateDir: a.cfg.StateDir,
		Seal: a.proxy.Seal, MayAttach: a.mayAttach, Healing: &a.healing,
	})
	if err != nil {
		return err
	}
	triggers := []loop.Trigger{loop.On(leases, loop.ByPlan)}
	if a.clusterChanged != nil {
		moved := make(chan struct{}, 1)
		g.Go(func() error { return a.watchPlaces(ctx, a.clusterChanged[1], moved) })
		triggers = append(triggers, loop.On(moved, loop.ByPlan))
	}
	return a.data.Start(ctx, g.Go, triggers...)
}

// openRules opens what programs the packet filter and the services.
func (a *agent) openRules(ctx context.Context, g *errgroup.Group) (err error) {
	a.proxy, err = services.Open(facts.ProxyMode(a.cfg.ProxyMode), services.Options{
		Log: a.log, Settings: &a.settings, Leases: a.leases, Cluster: a.feed(), Whole: a.everything, Healing: &a.healing,
	})
	if err != nil {
		return err
	}
	g.Go(func() error {
		<-ctx.Done()
		return a.proxy.Close()
	})
	return nil
}

// startServices runs the loop of the packet filter and the services.
func (a *agent) startServices(ctx context.Context, g *errgroup.Group, leases <-chan struct{}) error {
	triggers := []loop.Trigger{loop.On(leases, loop.ByPlan)}
	if a.clusterChanged != nil {
		triggers = append(triggers, loop.On(a.clusterChanged[0], loop.ByPlan))
	}
	return a.proxy.Start(ctx, g.Go, triggers...)
}

// split copies a trigger to n channels, coalesced.
func split(ctx context.Context, in <-chan struct{}, n int) []<-chan struct{} {
	outs := make([]chan struct{}, n)
	ro := make([]<-chan struct{}, n)
	for i := range outs {
		outs[i] = make(chan struct{}, 1)
		ro[i] = outs[i]
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-in:
				if !ok {
					return
				}
				for _, o := range outs {
					loop.Poke(o)
				}
			}
		}
	}()
	return ro
}

// State prints what the agent wants in the kernel.
func (a *agent) State() string {
	want := a.data.State()
	r := a.proxy.State()
	return netstate.Union(want, netstate.New(r.Objects()...)).String() + r.Text()
}

// Diff prints what the loops would do now: commands, nothing when all is as planned.
func (a *agent) Diff(ctx context.Context) ([]string, error) {
	network, err1 := a.data.Diff(ctx)
	filter, err2 := a.proxy.Diff(ctx)
	return append(network, filter...), errors.Join(err1, err2)
}
