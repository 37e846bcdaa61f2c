package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/kernel/nft"
	"weft/internal/kernel/probe"
	"weft/internal/kernel/xt"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/relay"
	"weft/internal/store/kube"
)

// fullCheck is how often every loop looks at everything though nothing told it to.
const fullCheck = time.Minute

// agent is the composed program.
type agent struct {
	cfg     Config
	log     *slog.Logger
	facts   Facts
	backend overlay.Backend
	leases  leases
	kube    *kube.Store // nil without --kubeconfig
	watch   *kube.Watch
	// clusterChanged is the watch's trigger where another loop needs a copy of it, else nil.
	clusterChanged <-chan struct{}
	pods           *attachments
	data           *dataplane
	proxy          *proxyLoop
}

// Run is the agent until ctx ends. What it made in the kernel stays when it returns.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	a := &agent{cfg: cfg, log: log}
	if err := makeDirs(cfg); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(cfg.RunDir, "agent.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkPorts(ctx, cfg); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if err := a.open(ctx, g); err != nil {
		return err
	}
	if err := a.start(ctx, g); err != nil {
		return err
	}
	return g.Wait()
}

func makeDirs(cfg Config) error {
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
	underlay, err := probe.FindUnderlay(a.cfg.Iface)
	if err != nil {
		return err
	}
	features := probe.Kernel()
	a.facts = Facts{
		Node: a.cfg.NodeName, Dev: underlay.Dev, MTU: underlay.MTU, Addrs: underlay.Addrs, Connected: underlay.Connected, Gateway: underlay.Gateway,
		Attach: a.cfg.attachMode, BridgeNetfilter: features.BridgeNetfilter, IPv6: features.IPv6, ProxyMode: ProxyMode(a.cfg.ProxyMode),
		IPMasq: a.cfg.IPMasq, MasqueradePods: a.cfg.MasqueradePods, ServiceRange: a.cfg.serviceRange,
	}
	if a.cfg.Attach == "bridge" {
		a.facts.Bridge = a.cfg.Bridge
	}
	if !a.cfg.KubeSubnetManager {
		a.facts.Etcd, a.facts.EtcdPrefix = a.cfg.EtcdEndpoints, a.cfg.EtcdPrefix
	}
	if a.cfg.Kubeconfig != "" {
		if a.kube, err = kube.Open(a.cfg.Kubeconfig, a.log); err != nil {
			return err
		}
		a.watch = a.kube.Watch(ctx, kube.WatchOptions{PodsOf: a.cfg.NodeName})
	}
	network, err := a.openLeases(ctx, g)
	if err != nil {
		return err
	}
	if err := a.checkRanges(network); err != nil {
		return err
	}
	a.facts.takeNetwork(network)
	if a.backend, err = backendOf(a.facts.Backend); err != nil {
		return err
	}
	a.pods, err = openAttachments(filepath.Join(a.cfg.RunDir, "attachments.json"))
	return err
}

// checkRanges refuses a service range that lies in the pod network: a packet could be for either.
func (a *agent) checkRanges(c lease.Config) error {
	for _, n := range valid(c.V4.Network, c.V6.Network) {
		if a.cfg.serviceRange.IsValid() && n.Overlaps(a.cfg.serviceRange) {
			return fmt.Errorf("--service-cluster-ip-range=%s overlaps the pod network %s: choose another range for the services", a.cfg.serviceRange, n)
		}
	}
	return nil
}

// start makes the loops and runs them.
func (a *agent) start(ctx context.Context, g *errgroup.Group) error {
	var err error
	if a.data, err = newDataplane(a.log, a.facts, a.backend, a.leases, a.pods); err != nil {
		return err
	}
	changed, err := a.data.handle.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch the host's network: %w", err)
	}
	engine := relay.New(relay.Options{Log: a.log})
	a.proxy = &proxyLoop{
		log: a.log, facts: a.facts, leases: a.leases, cluster: a.cluster,
		xt: xt.Kernel{}, relay: engine, ready: make(chan struct{}),
	}
	g.Go(func() error {
		<-ctx.Done()
		return engine.Close()
	})
	table, err := nft.Open()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	g.Go(func() error {
		<-ctx.Done()
		return table.Close()
	})
	a.proxy.nft = table
	leaseChanged := split(ctx, a.leases.Changed(), 3)
	data := loop{name: "network", step: a.data.step, every: fullCheck, log: a.log, triggers: []<-chan struct{}{leaseChanged[0], changed}}
	services := loop{name: "services", step: a.proxy.step, every: fullCheck, log: a.log, triggers: []<-chan struct{}{leaseChanged[1]}}
	if a.clusterChanged == nil && a.watch != nil {
		a.clusterChanged = a.watch.Changed()
	}
	if a.clusterChanged != nil {
		services.triggers = append(services.triggers, a.clusterChanged)
	}
	g.Go(func() error { return data.run(ctx) })
	g.Go(func() error { return services.run(ctx) })
	g.Go(func() error { return a.announce(ctx, leaseChanged[2]) })
	g.Go(func() error { return serve(ctx, a, a.cfg.RunDir, a.cfg.HealthzBind) })
	if a.kube != nil && a.cfg.PodRuntime == "process" {
		g.Go(func() error { return a.runNode(ctx) })
	}
	return nil
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
					poke(o)
				}
			}
		}
	}()
	return ro
}

// cluster is the Kubernetes side of the plan; known is false until everything was listed once. Without an API there are
// no services, and that is known.
func (a *agent) cluster() (snap api.Snapshot, known bool) {
	if a.watch == nil {
		return api.Snapshot{}, true
	}
	select {
	case <-a.watch.Synced():
		return a.watch.Snapshot(), true
	default:
		return api.Snapshot{}, false
	}
}

// announce writes subnet.env once the data path stands, and publishes the node's facts, whenever the lease changed.
func (a *agent) announce(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.data.ready:
	}
	l := loop{name: "announce", every: 5 * time.Minute, log: a.log, triggers: []<-chan struct{}{changed}, step: func(ctx context.Context) error {
		return errors.Join(a.writeSubnetEnv(), a.publishFacts(ctx))
	}}
	return l.run(ctx)
}

// writeSubnetEnv writes the file other programs read, when it says something else than it should.
func (a *agent) writeSubnetEnv() error {
	own, ok := a.leases.Own()
	if !ok {
		return nil
	}
	e := lease.SubnetEnv{
		Network: a.facts.Network, IPv6Network: a.facts.NetworkV6, Subnet: own.Subnet, IPv6Subnet: own.SubnetV6,
		MTU: overlay.MTU(a.backend, a.facts.self(own)), IPMasq: a.cfg.IPMasq,
	}
	old, err := os.ReadFile(a.cfg.SubnetFile)
	if err == nil && string(old) == e.Render() {
		return nil
	}
	if err := writeFile(a.cfg.SubnetFile, []byte(e.Render()), 0o644); err != nil {
		return fmt.Errorf("--subnet-file: %w", err)
	}
	return nil
}

func (a *agent) publishFacts(ctx context.Context) error {
	if a.kube == nil {
		return nil
	}
	text, err := a.facts.JSON()
	if err != nil {
		return err
	}
	if err := a.kube.AnnotateNode(ctx, a.cfg.NodeName, map[string]*string{FactsAnnotation: &text}); err != nil {
		return fmt.Errorf("publish the node's facts: %w", err)
	}
	return nil
}

// State prints what the agent wants in the kernel.
func (a *agent) State() string {
	want, _ := a.data.state()
	r, _ := a.proxy.state()
	return netstate.Union(want, netstate.New(r.objects()...)).String() + r.text()
}

// Diff prints what the loops would do now: commands, nothing when all is as planned.
func (a *agent) Diff(ctx context.Context) ([]string, error) {
	network, err1 := a.data.diff(ctx)
	filter, err2 := a.proxy.diff(ctx)
	return append(network, filter...), errors.Join(err1, err2)
}
