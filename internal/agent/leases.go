package agent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"weft/internal/agent/leases"
	"weft/internal/agent/settings"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store"
	"weft/internal/store/etcd"
	"weft/internal/store/file"
)

// openLeases opens the store of leases that the flags name and returns the network's configuration. The node's own lease may
// come later.
func (a *agent) openLeases(ctx context.Context, g *errgroup.Group) (lease.Config, error) {
	if a.cfg.KubeSubnetManager {
		return a.openKubeLeases(ctx, g)
	}
	kv, err := etcd.Open(etcdConfig(a.cfg))
	if err != nil {
		return lease.Config{}, err
	}
	c, err := leases.WaitConfig(ctx, kv, a.log)
	if err != nil {
		return c, errors.Join(err, kv.Close())
	}
	if err := a.meetLeases(ctx, kv); err != nil {
		return c, errors.Join(err, kv.Close())
	}
	want, err := a.want(ctx, c)
	if err != nil {
		return c, errors.Join(err, kv.Close())
	}
	k := store.NewKeeper(kv, want, a.log)
	g.Go(func() error { return errors.Join(k.Run(ctx), kv.Close()) })
	a.leases = k
	a.network = func() (lease.Config, bool) {
		s := k.Status()
		return s.Config, s.HasConfig
	}
	a.networkChanged, a.ownChanged = k.SubscribeOwn(), k.SubscribeOwn()
	a.announceSelf = func(self api.Lease) error {
		k.Change(func(w *claim.Want) {
			self.Subnet, self.SubnetV6 = w.Self.Subnet, w.Self.SubnetV6
			w.Self = self
		})
		return nil
	}
	a.avoidRoutes = func(routes []claim.HostRoute) { k.Change(func(w *claim.Want) { w.Avoid = routes }) }
	a.leaseReport = func(now time.Time) (leases.Status, bool) { return leases.StatusOf(k.Status(), now) }
	return c, nil
}

func etcdConfig(c settings.Config) etcd.Config {
	return etcd.Config{
		Endpoints: c.EtcdEndpoints, Prefix: c.EtcdPrefix, CAFile: c.EtcdCA, CertFile: c.EtcdCert, KeyFile: c.EtcdKey,
		Username: c.EtcdUsername, Password: c.EtcdPassword,
	}
}

// want is what the node asks the store for.
func (a *agent) want(ctx context.Context, c lease.Config) (claim.Want, error) {
	s, err := a.configureAtStart(ctx, c)
	if err != nil {
		return claim.Want{}, err
	}
	self := s.Announced
	if a.cfg.AskedSubnet().Addr().Is6() {
		self.SubnetV6 = a.cfg.AskedSubnet()
	} else {
		self.Subnet = a.cfg.AskedSubnet()
	}
	w := claim.Want{Self: self}
	before, err := a.before()
	if err != nil {
		return w, err
	}
	w.Previous, w.PreviousV6 = before.Subnet, before.IPv6Subnet
	w.Avoid, err = a.hostRoutes()
	return w, err
}

func (a *agent) openKubeLeases(ctx context.Context, g *errgroup.Group) (lease.Config, error) {
	k, text, err := leases.OpenKube(a.log, a.cfg.NetConfigPath, a.cfg.AnnotationPrefix)
	if err != nil {
		return lease.Config{}, err
	}
	c, _ := k.NetworkConfig()
	a.meetNodes()
	s, err := a.configureAtStart(ctx, c)
	if err != nil {
		return lease.Config{}, err
	}
	avoid, err := a.hostRoutes()
	if err != nil {
		return lease.Config{}, err
	}
	events := a.kube.Events(ctx, "weft", a.cfg.NodeName)
	k.Begin(s.Announced, avoid, func(text string) {
		events.Event(nodeReference(a.cfg.NodeName), corev1.EventTypeWarning, "LeaseRefused", text)
	})
	a.leases, a.network, a.networkChanged, a.avoidRoutes = k, k.NetworkConfig, k.NetworkChanged(), k.AvoidRoutes
	a.leaseReport = func(time.Time) (leases.Status, bool) { return k.Status() }
	a.announceSelf = func(self api.Lease) error {
		k.Announce(self)
		return nil
	}
	g.Go(func() error { return file.Follow(ctx, a.cfg.NetConfigPath, text, k.SetConfig) })
	g.Go(func() error { return k.Run(ctx, a.cluster, a.clusterChanged[2], a.annotateLease) })
	return c, nil
}

// annotateLease publishes the node's lease as flannel does.
func (a *agent) annotateLease(ctx context.Context, l api.Lease) error {
	text, err := lease.Annotations(l, a.cfg.AnnotationPrefix)
	if err != nil {
		return err
	}
	patch := make(map[string]*string, len(text)+1)
	patch[lease.AlsoAnnotation] = nil // goes when there is nothing more to say
	for k, v := range text {
		patch[k] = &v
	}
	return a.kube.AnnotateNode(ctx, a.cfg.NodeName, patch)
}

// leaseSource is the store of leases as the agent uses it.
type leaseSource interface {
	Own() (api.Lease, bool) // the node's own lease, once it has one
	Leases() []api.Lease    // all that are good, the own one too
	Changed() <-chan struct{}
}
