package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
)

// resync is how often informers hand every object to their controllers again.
const resync = 12 * time.Hour

// control is what the controllers share: the API server's own informers, so that every object is in memory once.
type control struct {
	ctx       context.Context // of the controllers' whole life: upstream's constructors start event broadcasters on it
	opts      *Options
	ranges    ranges
	keys      keys
	config    *rest.Config
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
	metadata  metadatainformer.SharedInformerFactory
	mapper    *restmapper.DeferredDiscoveryRESTMapper
	started   chan struct{} // closed when the informers run
}

// loop is a built controller: it runs until its context ends.
type loop func(context.Context)

// newControl connects to the API server as the process's own identity. Upstream runs each controller as a service
// account, to bound what a flaw in one can do; here they share the API server's process, so that wall would be paint.
func newControl(ctx context.Context, a *api, o *Options, r ranges, k keys) (*control, error) {
	config := rest.CopyConfig(a.loopback)
	config.UserAgent = "weft-server/controllers"
	config.QPS = -1 // no client-side limit towards ourselves
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make metadata client: %w", err)
	}
	return &control{
		ctx: ctx, opts: o, ranges: r, keys: k, config: config, client: client, informers: a.informers,
		metadata: metadatainformer.NewSharedInformerFactory(metadataClient, resync),
		mapper:   restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		started:  make(chan struct{}),
	}, nil
}

// build makes every controller. Their informers are asked for here, before any of them starts.
func (c *control) build() ([]loop, error) {
	var loops []loop
	var errs []error
	for _, build := range []func() (loop, error){
		c.workloads, c.daemons, c.deployments, c.budgets, c.endpoints, c.nodes, c.evictions, c.nodeRanges, c.orphans,
		c.namespaces, c.accounts, c.tokens, c.rootCA, c.quotas, c.garbage,
	} {
		run, err := build()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		loops = append(loops, run)
	}
	return loops, errors.Join(errs...)
}

// run starts the informers and the controllers, and returns when all have ended.
func (c *control) run(loops []loop) {
	c.informers.Start(c.ctx.Done())
	c.metadata.Start(c.ctx.Done())
	close(c.started)
	loops = append(loops, func(ctx context.Context) {
		wait.UntilWithContext(ctx, func(context.Context) { c.mapper.Reset() }, 30*time.Second)
	})
	var wg sync.WaitGroup
	for _, run := range loops {
		wg.Go(func() { run(c.ctx) })
	}
	wg.Wait()
}

// all runs loops side by side.
func all(loops ...loop) loop {
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		for _, run := range loops {
			wg.Go(func() { run(ctx) })
		}
		wg.Wait()
	}
}

// generic gives controllers of any resource its typed informer where one runs, else one of metadata alone.
func (c *control) generic() informerfactory.InformerFactory {
	return informerfactory.NewInformerFactory(c.informers, c.metadata)
}

// subnets are the pod network and the service ranges as upstream wants them.
func (c *control) subnets() (cluster []*net.IPNet, masks []int, service, other *net.IPNet) {
	for _, p := range c.ranges.cluster {
		n := ipNet(p)
		cluster, masks = append(cluster, &n), append(masks, c.opts.nodeMask(p))
	}
	n := ipNet(c.ranges.service[0])
	service = &n
	if p := second(c.ranges.service); p.IsValid() {
		n := ipNet(p)
		other = &n
	}
	return cluster, masks, service, other
}
