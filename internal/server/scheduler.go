package server

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// runScheduler runs upstream's scheduler until ctx ends; synced is closed when it knows all nodes and pods.
//
// Upstream's and not a small one of our own: it costs these few lines and some 10 MB, and it is what users of nodeName,
// nodeSelector, affinity, taints, topology spread, priorities and resource requests expect to the letter. Only its
// default for pods that ask for no spreading is made stricter: pods of one controller or service differ by at most one
// between nodes (upstream: three), so two replicas on two empty nodes are one each.
func runScheduler(ctx context.Context, c *control, synced chan<- struct{}) error {
	cfg, err := latest.Default()
	if err != nil {
		return fmt.Errorf("configure scheduler: %w", err)
	}
	spread(cfg)
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	dynClient, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make dynamic client: %w", err)
	}
	// The scheduler's own informers: its pods are only those not finished, and stripped of what it does not read.
	informers := scheduler.NewInformerFactory(client, 0)
	dynInformers := dynamicinformer.NewFilteredDynamicSharedInformerFactory(dynClient, 0, metav1.NamespaceAll, nil)
	broadcaster := events.NewEventBroadcasterAdapterWithContext(ctx, client)
	defer broadcaster.Shutdown()
	recorders := profile.RecorderFactory(func(name string) events.EventRecorderLogger { return broadcaster.NewRecorder(name) })
	s, err := scheduler.New(ctx, client, informers, dynInformers, recorders,
		scheduler.WithProfiles(cfg.Profiles...), scheduler.WithParallelism(cfg.Parallelism))
	if err != nil {
		return fmt.Errorf("build scheduler: %w", err)
	}
	broadcaster.StartRecordingToSink(ctx.Done())
	informers.Start(ctx.Done())
	dynInformers.Start(ctx.Done())
	informers.WaitForCacheSync(ctx.Done())
	dynInformers.WaitForCacheSync(ctx.Done())
	waitCtx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.WaitForHandlersSync(waitCtx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("start scheduler: %w", err)
	}
	close(synced)
	s.Run(ctx)
	return nil
}

// spread replaces the default topology constraints.
func spread(cfg *config.KubeSchedulerConfiguration) {
	for _, p := range cfg.Profiles {
		for _, plugin := range p.PluginConfig {
			args, ok := plugin.Args.(*config.PodTopologySpreadArgs)
			if !ok {
				continue
			}
			args.DefaultingType = config.ListDefaulting
			args.DefaultConstraints = []v1.TopologySpreadConstraint{
				{MaxSkew: 1, TopologyKey: v1.LabelHostname, WhenUnsatisfiable: v1.ScheduleAnyway},
			}
		}
	}
}
