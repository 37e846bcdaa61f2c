package server

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	genericquota "k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/resourcequota"
	sacontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	quotainstall "k8s.io/kubernetes/pkg/quota/v1/install"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// discoveryPeriod is how often the controllers of every resource look for new resources.
const discoveryPeriod = 30 * time.Second

func (c *control) namespaces() (loop, error) {
	meta, err := metadata.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("build namespace controller: %w", err)
	}
	n := namespace.NewNamespaceController(c.ctx, c.client, meta, c.client.Discovery().ServerPreferredNamespacedResources,
		c.informers.Core().V1().Namespaces(), 5*time.Minute, v1.FinalizerKubernetes)
	return func(ctx context.Context) { n.Run(ctx, workers) }, nil
}

func (c *control) accounts() (loop, error) {
	core := c.informers.Core().V1()
	s, err := sacontroller.NewServiceAccountsController(klog.FromContext(c.ctx), core.ServiceAccounts(), core.Namespaces(), c.client,
		sacontroller.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, fmt.Errorf("build service account controller: %w", err)
	}
	return func(ctx context.Context) { s.Run(ctx, 1) }, nil
}

// tokens fills secrets of type kubernetes.io/service-account-token.
func (c *control) tokens() (loop, error) {
	key, err := keyutil.PrivateKeyFromFile(c.keys.signing)
	if err != nil {
		return nil, fmt.Errorf("read service account key: %w", err)
	}
	generator, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, key)
	if err != nil {
		return nil, fmt.Errorf("build token controller: %w", err)
	}
	core := c.informers.Core().V1()
	t, err := sacontroller.NewTokensController(klog.FromContext(c.ctx), core.ServiceAccounts(), core.Secrets(), c.client,
		sacontroller.TokensControllerOptions{TokenGenerator: generator, RootCA: c.keys.cluster.CA})
	if err != nil {
		return nil, fmt.Errorf("build token controller: %w", err)
	}
	return func(ctx context.Context) { t.Run(ctx, workers) }, nil
}

// rootCA keeps the ConfigMap kube-root-ca.crt in every namespace.
func (c *control) rootCA() (loop, error) {
	core := c.informers.Core().V1()
	p, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), c.client, c.keys.cluster.CA)
	if err != nil {
		return nil, fmt.Errorf("build root CA publisher: %w", err)
	}
	return func(ctx context.Context) { p.Run(ctx, 1) }, nil
}

func (c *control) quotas() (loop, error) {
	listers := genericquota.ListerFuncForResourceFunc(c.informers.ForResource)
	config, err := quotainstall.NewQuotaConfigurationForControllers(listers, c.informers)
	if err != nil {
		return nil, fmt.Errorf("build quota controller: %w", err)
	}
	discover := c.client.Discovery().ServerPreferredNamespacedResources
	q, err := resourcequota.NewController(c.ctx, &resourcequota.ControllerOptions{
		QuotaClient:               c.client.CoreV1(),
		ResourceQuotaInformer:     c.informers.Core().V1().ResourceQuotas(),
		ResyncPeriod:              controller.StaticResyncPeriodFunc(5 * time.Minute),
		InformerFactory:           c.generic(),
		ReplenishmentResyncPeriod: controller.StaticResyncPeriodFunc(resync),
		DiscoveryFunc:             discover,
		IgnoredResourcesFunc:      config.IgnoredResources,
		InformersStarted:          c.started,
		Registry:                  genericquota.NewRegistry(config.Evaluators()),
		UpdateFilter:              quotainstall.DefaultUpdateFilter(),
	})
	if err != nil {
		return nil, fmt.Errorf("build quota controller: %w", err)
	}
	return all(
		func(ctx context.Context) { q.Run(ctx, workers) },
		func(ctx context.Context) { q.Sync(ctx, discover, discoveryPeriod) },
	), nil
}

// garbage deletes what lost its owner; kubectl delete --cascade=orphan waits for it.
func (c *control) garbage() (loop, error) {
	meta, err := metadata.NewForConfig(c.config)
	if err != nil {
		return nil, fmt.Errorf("build garbage collector: %w", err)
	}
	graph := garbagecollector.NewDependencyGraphBuilder(c.ctx, meta, c.mapper, garbagecollector.DefaultIgnoredResources(),
		c.generic(), c.started)
	g, err := garbagecollector.NewComposedGarbageCollector(c.ctx, c.client, meta, c.mapper, graph)
	if err != nil {
		return nil, fmt.Errorf("build garbage collector: %w", err)
	}
	return all(
		func(ctx context.Context) { g.Run(ctx, workers, discoveryPeriod) },
		func(ctx context.Context) { g.Sync(ctx, c.client.Discovery(), discoveryPeriod) },
	), nil
}
