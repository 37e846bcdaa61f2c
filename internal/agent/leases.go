package agent

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/lease"
)

// openLeases opens the store of leases that the flags name and returns the network's configuration. The node's own lease may
// come later.
func (a *agent) openLeases(ctx context.Context, g *errgroup.Group) (lease.Config, error) {
	if a.cfg.KubeSubnetManager {
		return a.openKubeLeases(ctx, g)
	}
	return lease.Config{}, errors.New("etcd: not yet")
}

func (a *agent) openKubeLeases(ctx context.Context, g *errgroup.Group) (lease.Config, error) {
	k, err := openKubeLeases(a.log, a.watch, a.cfg.NetConfigPath)
	if err != nil {
		return lease.Config{}, err
	}
	if k.self, err = a.self(ctx, k.config); err != nil {
		return lease.Config{}, err
	}
	nodes := split(ctx, a.watch.Changed(), 2)
	a.clusterChanged = nodes[0]
	a.leases = k
	g.Go(func() error { return k.run(ctx, nodes[1], a.annotateLease) })
	return k.config, nil
}

// annotateLease publishes the node's lease as flannel does.
func (a *agent) annotateLease(ctx context.Context, l api.Lease) error {
	text, err := lease.Annotations(l, lease.AnnotationPrefix)
	if err != nil {
		return err
	}
	patch := make(map[string]*string, len(text))
	for k, v := range text {
		patch[k] = &v
	}
	return a.kube.AnnotateNode(ctx, a.cfg.NodeName, patch)
}
