package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/kernel/probe"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/netstate"
	"weft/internal/overlay/vxlan"
	"weft/internal/store"
	"weft/internal/store/etcd"
)

// startWait is how long an agent that starts waits for its lease store before it gives up with an error. One that runs
// waits for ever.
const startWait = 30 * time.Second

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
		avoid, err := a.avoid()
		k.Change(func(w *claim.Want) {
			self.Subnet, self.SubnetV6 = w.Self.Subnet, w.Self.SubnetV6
			w.Self = self
			if err == nil {
				w.Avoid = avoid
			}
		})
		return err
	}
	return c, nil
}

func (c Config) etcd() etcd.Config {
	return etcd.Config{
		Endpoints: c.EtcdEndpoints, Prefix: c.EtcdPrefix, CAFile: c.EtcdCA, CertFile: c.EtcdCert, KeyFile: c.EtcdKey,
		Username: c.EtcdUsername, Password: c.EtcdPassword,
	}
}

// waitConfig reads the network configuration; a host may start before its store.
func waitConfig(ctx context.Context, kv *etcd.Client, log *slog.Logger) (lease.Config, error) {
	deadline := time.NewTimer(startWait)
	defer deadline.Stop()
	for {
		_, c, err := kv.NetworkConfig(ctx)
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		log.Info("waiting for the network configuration", "at most", startWait, "err", err)
		again := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			return c, fmt.Errorf("no network configuration after %s: %w", startWait, err)
		}
		again.Stop()
	}
}

// want is what the node asks the store for.
func (a *agent) want(ctx context.Context, c lease.Config) (claim.Want, error) {
	s, err := a.configure(ctx, a.settings.facts(), c)
	if err != nil {
		return claim.Want{}, err
	}
	self := s.self
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
	w.Avoid, err = a.avoid()
	return w, err
}

// avoid lists the networks the host reaches by itself.
func (a *agent) avoid() ([]netip.Prefix, error) {
	return probe.HostRoutes(netstate.RouteProtocol, func(dev string) bool {
		return strings.HasPrefix(dev, "flannel") || vxlan.StandIn(dev) || dev == a.cfg.Bridge || dev == "cni0" || dev == "docker0"
	})
}

func (a *agent) openKubeLeases(ctx context.Context, g *errgroup.Group) (lease.Config, error) {
	k, err := openKubeLeases(a.log, a.watch, a.cfg.NetConfigPath)
	if err != nil {
		return lease.Config{}, err
	}
	s, err := a.configure(ctx, a.settings.facts(), k.config)
	if err != nil {
		return lease.Config{}, err
	}
	k.self = s.self
	a.leases = k
	a.network = func() (lease.Config, bool) { return k.config, true }
	a.announceSelf = func(self api.Lease) error {
		k.announce(self)
		return nil
	}
	g.Go(func() error { return k.run(ctx, a.clusterChanged[2], a.annotateLease) })
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
