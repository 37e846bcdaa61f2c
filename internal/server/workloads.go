package server

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/endpoint"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/endpointslicemirroring"
	"k8s.io/kubernetes/pkg/controller/nodeipam"
	"k8s.io/kubernetes/pkg/controller/nodeipam/ipam"
	"k8s.io/kubernetes/pkg/controller/nodelifecycle"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/replication"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/tainteviction"
)

// How many objects of a kind are worked on at once, and how many a slice holds: kube-controller-manager's defaults.
const (
	workers           = 5
	endpointsPerSlice = 100
)

func (c *control) workloads() (loop, error) {
	core, apps := c.informers.Core().V1(), c.informers.Apps().V1()
	rc := replication.NewReplicationManager(c.ctx, core.Pods(), core.ReplicationControllers(), c.client, replication.BurstReplicas)
	rs := replicaset.NewReplicaSetController(c.ctx, apps.ReplicaSets(), core.Pods(), c.client, replicaset.BurstReplicas)
	sts := statefulset.NewStatefulSetController(c.ctx, core.Pods(), apps.StatefulSets(), core.PersistentVolumeClaims(),
		apps.ControllerRevisions(), c.client)
	return all(
		func(ctx context.Context) { rc.Run(ctx, workers) },
		func(ctx context.Context) { rs.Run(ctx, workers) },
		func(ctx context.Context) { sts.Run(ctx, workers) },
	), nil
}

func (c *control) daemons() (loop, error) {
	core, apps := c.informers.Core().V1(), c.informers.Apps().V1()
	ds, err := daemon.NewDaemonSetsController(c.ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(), core.Nodes(),
		c.client, flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return nil, fmt.Errorf("build daemonset controller: %w", err)
	}
	return func(ctx context.Context) { ds.Run(ctx, workers) }, nil
}

func (c *control) deployments() (loop, error) {
	apps := c.informers.Apps().V1()
	d, err := deployment.NewDeploymentController(c.ctx, apps.Deployments(), apps.ReplicaSets(), c.informers.Core().V1().Pods(), c.client)
	if err != nil {
		return nil, fmt.Errorf("build deployment controller: %w", err)
	}
	return func(ctx context.Context) { d.Run(ctx, workers) }, nil
}

// budgets keeps PodDisruptionBudgets' status, which kubectl drain goes by.
func (c *control) budgets() (loop, error) {
	core, apps := c.informers.Core().V1(), c.informers.Apps().V1()
	kinds := scale.NewDiscoveryScaleKindResolver(c.client.Discovery())
	scales, err := scale.NewForConfig(c.config, c.mapper, dynamic.LegacyAPIPathResolverFunc, kinds)
	if err != nil {
		return nil, fmt.Errorf("build disruption controller: %w", err)
	}
	return disruption.NewDisruptionController(c.ctx, core.Pods(), c.informers.Policy().V1().PodDisruptionBudgets(),
		core.ReplicationControllers(), apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(),
		c.client, c.mapper, scales, c.client.Discovery()).Run, nil
}

func (c *control) endpoints() (loop, error) {
	core, slices := c.informers.Core().V1(), c.informers.Discovery().V1().EndpointSlices()
	ep := endpoint.NewEndpointController(c.ctx, core.Pods(), core.Services(), core.Endpoints(), c.client, 0)
	eps := endpointslice.NewController(c.ctx, core.Pods(), core.Services(), core.Nodes(), slices, endpointsPerSlice, c.client, 0)
	mirror := endpointslicemirroring.NewController(c.ctx, core.Endpoints(), slices, core.Services(), 1000, c.client, 0)
	return all(
		func(ctx context.Context) { ep.Run(ctx, workers) },
		func(ctx context.Context) { eps.Run(ctx, workers) },
		func(ctx context.Context) { mirror.Run(ctx, workers) },
	), nil
}

// nodes marks and taints the nodes that went silent.
func (c *control) nodes() (loop, error) {
	core := c.informers.Core().V1()
	n, err := nodelifecycle.NewNodeLifecycleController(c.ctx, c.informers.Coordination().V1().Leases(), core.Pods(), core.Nodes(),
		c.informers.Apps().V1().DaemonSets(), c.client,
		c.opts.NodeMonitor, time.Minute, c.opts.NodeGrace, 0.1, 0.01, 50, 0.55)
	if err != nil {
		return nil, fmt.Errorf("build node lifecycle controller: %w", err)
	}
	return n.Run, nil
}

// evictions deletes the pods of tainted nodes when their tolerations run out.
func (c *control) evictions() (loop, error) {
	core := c.informers.Core().V1()
	t, err := tainteviction.New(c.ctx, c.client, core.Pods(), core.Nodes(), "taint-eviction-controller")
	if err != nil {
		return nil, fmt.Errorf("build taint eviction controller: %w", err)
	}
	return t.Run, nil
}

// nodeRanges hands out podCIDRs when --allocate-node-cidrs says so.
func (c *control) nodeRanges() (loop, error) {
	if !c.opts.AllocateCIDRs {
		return all(), nil
	}
	cluster, masks, service, other := c.subnets()
	n, err := nodeipam.NewNodeIpamController(c.ctx, c.informers.Core().V1().Nodes(), nil, c.client, cluster, service, other,
		masks, ipam.RangeAllocatorType)
	if err != nil {
		return nil, fmt.Errorf("build node range controller: %w", err)
	}
	return n.Run, nil
}
