package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

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
	kv, err := etcd.Open(a.cfg.etcd())
	if err != nil {
		return lease.Config{}, err
	}
	c, err := waitConfig(ctx, kv, a.log)
	if err != nil {
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
	a.leaseReport = func(now time.Time) (leaseStatus, bool) { return statusOf(k.Status(), now) }
	return c, nil
}

func (c Config) etcd() etcd.Config {
	return etcd.Config{
		Endpoints: c.EtcdEndpoints, Prefix: c.EtcdPrefix, CAFile: c.EtcdCA, CertFile: c.EtcdCert, KeyFile: c.EtcdKey,
		Username: c.EtcdUsername, Password: c.EtcdPassword,
	}
}

// statusOf is what is said of the lease a Keeper keeps; believes is whether new pods may get addresses of it.
func statusOf(s store.Status, now time.Time) (l leaseStatus, believes bool) {
	return leaseStatus{
		Phase: s.Phase.String(), Permanent: s.Permanent, Expires: s.Own.Expiry, Problem: s.Problem, Since: s.Since,
		Refused: refusedOf(s.Refused),
	}, s.Believes(now)
}

// Waiting for the store at the start.
const (
	askAgain = time.Second
	remind   = 30 * time.Second // what is waited for is said again
)

// waitConfig reads the network configuration; a host may start before its store, and before the configuration. It waits for ever, and says
// what for. Only what no waiting helps against is an error: etcd does not let this identity in, or cannot be trusted.
func waitConfig(ctx context.Context, kv *etcd.Client, log *slog.Logger) (lease.Config, error) {
	said, at := "", time.Time{}
	for {
		_, c, err := kv.NetworkConfig(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, etcd.ErrDenied) {
			return c, err
		}
		if err.Error() != said || time.Since(at) > remind {
			log.Warn("waiting for the network configuration", "err", err)
			said, at = err.Error(), time.Now()
		}
		again := time.NewTimer(askAgain)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
		again.Stop()
	}
}

// want is what the node asks the store for.
func (a *agent) want(ctx context.Context, c lease.Config) (claim.Want, error) {
	s, err := a.configure(ctx, a.settings.Facts(), c)
	if err != nil {
		return claim.Want{}, err
	}
	self := s.Announced
	if a.cfg.subnet.Addr().Is6() {
		self.SubnetV6 = a.cfg.subnet
	} else {
		self.Subnet = a.cfg.subnet
	}
	w := claim.Want{Self: self}
	text, err := os.ReadFile(a.cfg.SubnetFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return w, fmt.Errorf("--subnet-file: %w", err)
	default:
		before, err := lease.ParseSubnetEnv(text)
		if err != nil {
			a.log.Warn("the earlier subnet is not known", "file", a.cfg.SubnetFile, "err", err)
		}
		w.Previous, w.PreviousV6 = before.Subnet, before.IPv6Subnet
	}
	w.Avoid, err = a.hostRoutes()
	return w, err
}

func (a *agent) openKubeLeases(ctx context.Context, g *errgroup.Group) (lease.Config, error) {
	k, text, err := openKubeLeases(a.log, a.cfg.NetConfigPath)
	if err != nil {
		return lease.Config{}, err
	}
	s, err := a.configure(ctx, a.settings.Facts(), k.config)
	if err != nil {
		return lease.Config{}, err
	}
	k.self = s.Announced
	if k.avoid, err = a.hostRoutes(); err != nil {
		return lease.Config{}, err
	}
	events := a.kube.Events(ctx, "weft", a.cfg.NodeName)
	k.event = func(text string) {
		events.Event(nodeReference(a.cfg.NodeName), corev1.EventTypeWarning, "LeaseRefused", text)
	}
	a.leases, a.network, a.networkChanged, a.avoidRoutes = k, k.networkConfig, k.network, k.avoidRoutes
	a.leaseReport = func(time.Time) (leaseStatus, bool) { return k.status() }
	a.announceSelf = func(self api.Lease) error {
		k.announce(self)
		return nil
	}
	g.Go(func() error { return file.Follow(ctx, a.cfg.NetConfigPath, text, k.setConfig) })
	g.Go(func() error { return k.run(ctx, a.cluster, a.clusterChanged[2], a.annotateLease) })
	return k.config, nil
}

// annotateLease publishes the node's lease as flannel does.
func (a *agent) annotateLease(ctx context.Context, l api.Lease) error {
	text, err := lease.Annotations(l, lease.AnnotationPrefix)
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
