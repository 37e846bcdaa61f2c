// Package server is weft-server, the control plane of a cluster that has none: the Kubernetes API, its controllers and
// its scheduler in one process, on an embedded or an external etcd. Nothing of an API server is written here; this
// package composes upstream's parts, gives them keys and an order to start and stop in, and turns what goes wrong into one line.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sync/errgroup"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
)

const (
	// shutdownPatience bounds how long a stop waits for requests that are being served.
	shutdownPatience = 2 * time.Second
	// startPatience bounds how long a start may take once etcd answers.
	startPatience = 60 * time.Second
	// idleGC is how much the heap may grow between collections, in percent, once the start is over.
	idleGC = 40
)

// Version is weft's own, set by the linker.
var Version = "dev"

// Run starts the server and serves until ctx ends; then it stops in order and returns nil. It writes one line to out
// when everything works. An error means that nothing runs any more and, when the start failed, that nothing was left behind.
func Run(ctx context.Context, o *Options, out, logs io.Writer) error {
	log := newLogger(logs)
	slog.SetDefault(log)
	quiet(log.Handler(), o.Verbosity)
	plan, err := o.plan()
	if err != nil {
		return err
	}
	for _, line := range plan.warnings {
		log.Warn(line)
	}
	listener, err := listen(ctx, o)
	if err != nil {
		return err
	}
	o.kube.SecureServing.Listener = listener
	dir, err := openDataDir(o.DataDir)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	up, err := start(ctx, o, plan, dir, log)
	if err != nil {
		_ = listener.Close() // the API server may have closed it
		if ctx.Err() != nil {
			return dir.abandon() // asked to stop while starting
		}
		return errors.Join(err, dir.abandon())
	}
	if _, err := fmt.Fprintf(out, "weft-server ready at %s, kubeconfig %s\n", up.keys.cluster.Server, dir.adminKubeconfig()); err != nil {
		log.Warn("write ready line", "err", err)
	}
	// The start leaves as much garbage as what stays; a server that mostly waits can afford to keep its heap tight.
	debug.SetGCPercent(idleGC)
	debug.FreeOSMemory()
	<-up.ctx.Done()
	err = up.stop()
	return errors.Join(err, dir.close())
}

// plan is what the flags come to, before anything is touched.
type plan struct {
	ranges   ranges
	etcdURLs []url.URL
	warnings []string
}

// plan checks all flags and resolves what follows from them.
func (o *Options) plan() (plan, error) {
	var p plan
	var err error
	if p.ranges, err = o.ranges(); err != nil {
		return p, err
	}
	if err := o.gates(); err != nil {
		return p, err
	}
	if err := o.checkFiles(); err != nil {
		return p, err
	}
	for _, name := range o.NodeNames {
		if err := checkNodeName(name); err != nil {
			return p, fmt.Errorf("--node-names: %w", err)
		}
	}
	if err := o.checkAddresses(p.ranges); err != nil {
		return p, err
	}
	if o.embedded() {
		var endpoint string
		if p.etcdURLs, endpoint, err = o.listenURLs(); err != nil {
			return p, err
		}
		o.kube.Etcd.StorageConfig.Transport.ServerList = []string{endpoint}
	}
	retired, err := o.admission()
	if err != nil {
		return p, err
	}
	p.warnings = slices.Concat(o.retirements(), retired)
	return p, nil
}

// gates sets upstream's feature gates: ours first, then what --feature-gates says.
func (o *Options) gates() error {
	// A Lease that names the server, written every ten seconds, and what finds its peers by it are for many servers.
	if err := utilfeature.DefaultMutableFeatureGate.Set("UnknownVersionInteroperabilityProxy=false,APIServerIdentity=false"); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	if err := o.kube.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	return nil
}

// checkAddresses settles the advertised address; upstream would take a loopback one and fail later.
func (o *Options) checkAddresses(r ranges) error {
	if port := o.kube.SecureServing.BindPort; port < 1 || port > 65535 {
		return fmt.Errorf("--secure-port %d: use a port from 1 to 65535", port)
	}
	generic := o.kube.GenericServerRunOptions
	if err := generic.DefaultAdvertiseAddress(o.kube.SecureServing.SecureServingOptions); err != nil {
		return errors.New("--advertise-address: this host has no default route to choose an address by: give the one nodes reach it at")
	}
	addr, ok := addrOf(generic.AdvertiseAddress)
	if !ok || addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() {
		return fmt.Errorf("--advertise-address %s: nodes cannot reach it; give an address of this host on their network",
			generic.AdvertiseAddress)
	}
	if service := r.service[0]; addr.Is4() != service.Addr().Is4() {
		return fmt.Errorf("--advertise-address %s and --service-cluster-ip-range %s are of different families", addr, service)
	}
	for _, p := range r.service {
		if p.Contains(addr) {
			return fmt.Errorf("--service-cluster-ip-range %s contains the advertised address %s: give services a range of their own", p, addr)
		}
	}
	return nil
}

// listen takes the HTTPS port, so that a port that is taken stops the start before anything is written.
func listen(ctx context.Context, o *Options) (net.Listener, error) {
	address := net.JoinHostPort(o.kube.SecureServing.BindAddress.String(), itoa(o.kube.SecureServing.BindPort))
	if o.kube.SecureServing.BindAddress.IsUnspecified() {
		address = net.JoinHostPort("", itoa(o.kube.SecureServing.BindPort))
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, portHint(err, "--secure-port or --bind-address")
	}
	return listener, nil
}

// running is a server that is up.
type running struct {
	ctx     context.Context // ends when the server has to stop: asked to, or something broke
	keys    keys
	etcd    *embed.Etcd
	control context.CancelFunc // stops controllers and scheduler
	api     context.CancelFunc
	group   *errgroup.Group
	helpers sync.WaitGroup
}

// start brings everything up, in the order etcd, API server, controllers and scheduler, and waits until all work. When
// it fails, it takes down what it had started.
func start(ctx context.Context, o *Options, p plan, dir *dataDir, log *slog.Logger) (up *running, err error) {
	up = &running{control: func() {}, api: func() {}}
	up.group, up.ctx = errgroup.WithContext(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, up.stop())
		}
	}()
	if up.keys, err = o.makeKeys(dir, p.ranges); err != nil {
		return up, err
	}
	if p.etcdURLs != nil {
		up.etcd, err = o.startEtcd(ctx, dir.etcd(), p.etcdURLs)
	} else {
		err = awaitEtcd(ctx, log, o.kube.Etcd.StorageConfig)
	}
	if err != nil {
		return up, err
	}
	completed, err := o.complete(ctx)
	if err != nil {
		return up, err
	}
	a, err := newAPI(completed, o, p.ranges)
	if err != nil {
		return up, err
	}
	return up, up.serve(a, o, p.ranges)
}

// complete runs upstream's own completion and validation over its part of the flags.
func (o *Options) complete(ctx context.Context) (options.CompletedOptions, error) {
	completed, err := o.kube.Complete(ctx, nil, nil)
	if err != nil {
		return completed, fmt.Errorf("flags: %w", err)
	}
	return completed, firstError(completed.Validate())
}

// serve runs the API server and, on it, controllers and scheduler, and returns when all are ready.
func (up *running) serve(a *api, o *Options, r ranges) error {
	ready, cancel := context.WithTimeoutCause(up.ctx, startPatience, fmt.Errorf("not ready after %s", startPatience))
	defer cancel()
	apiCtx, stopAPI := context.WithCancel(context.WithoutCancel(up.ctx))
	up.api = stopAPI
	prepared := a.PrepareRun()
	up.group.Go(func() error {
		if err := prepared.RunWithContext(apiCtx); err != nil {
			return fmt.Errorf("run API server: %w", err)
		}
		return nil
	})
	controlCtx, stopControl := context.WithCancel(up.ctx)
	up.control = stopControl
	c, err := newControl(controlCtx, a, o, r, up.keys)
	if err != nil {
		return err
	}
	readyz := func() bool {
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ready).Error() == nil
	}
	loops, err := c.build()
	if err != nil {
		return err
	}
	if err := poll(ready, 20*time.Millisecond, readyz); err != nil {
		return fmt.Errorf("start API server: %w", err)
	}
	up.helpers.Go(func() { c.run(loops) })
	scheduling := make(chan struct{})
	up.group.Go(func() error { return runScheduler(controlCtx, c, scheduling) })
	if err := settle(ready, c.client); err != nil {
		return fmt.Errorf("start controllers: %w", err)
	}
	select {
	case <-scheduling:
		return nil
	case <-ready.Done():
		return fmt.Errorf("start scheduler: %w", context.Cause(ready))
	}
}

// stop takes everything down in the order opposite to start, and returns what made it necessary, unless it was asked for.
func (up *running) stop() error {
	up.control()
	within(shutdownPatience, up.helpers.Wait)
	up.api()
	var err error
	within(2*shutdownPatience, func() { err = up.group.Wait() })
	if up.etcd != nil {
		up.etcd.Close()
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// within runs wait, and gives up on it after d: a stop must end.
func within(d time.Duration, wait func()) {
	done := make(chan struct{})
	go func() { defer close(done); wait() }()
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		slog.Warn("stop takes long, going on without", "waited", d, "pid", os.Getpid())
	}
}
