package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/kernel/probe"
	"weft/internal/kernel/sysctl"
	"weft/internal/lease"
	"weft/internal/overlay"
)

// look finds out about the host. What the network's configuration adds is not in the facts yet.
func (a *agent) look() (facts.Facts, error) {
	now := a.live.Get()
	asked, choice := a.public(), a.cfg.Underlay.Chosen()
	choice.Prefer = asked.use[:]
	u, err := probe.Find(choice)
	if err != nil {
		return facts.Facts{}, err
	}
	k := probe.Kernel()
	f := facts.Facts{
		Node: a.cfg.NodeName, Dev: u.Dev, MTU: u.MTU, Addrs: u.Addrs, Connected: u.Connected, Gateway: u.Gateway,
		Attach: attach.Mode(a.cfg.Attach), BridgeNetfilter: k.BridgeNetfilter, IPv6: k.IPv6, ProxyMode: facts.ProxyMode(now.ProxyMode),
		EdgeCheck: now.EdgeCheck, IPMasq: now.IPMasq, MasqueradePods: now.MasqueradePods, ServiceRange: a.cfg.ServiceCIDR(),
		Masq: now.Masquerade.Asked(), Services: now.Services.Asked(),
	}
	f.Services.Probe()
	f.Services.NoHash = a.hashless.get()
	asked.into(&f)
	f.PathMTU = a.paths.Narrow(f.MTU)
	if a.cfg.Attach == "bridge" {
		f.Bridge, f.BridgeMAC = a.cfg.Bridge, a.bridgeMAC
	}
	if !a.cfg.KubeSubnetManager {
		f.Etcd, f.EtcdPrefix = a.cfg.EtcdEndpoints, a.cfg.EtcdPrefix
	} else if a.cfg.AnnotationPrefix != lease.AnnotationPrefix {
		f.AnnotationPrefix = a.cfg.AnnotationPrefix
	}
	return f, nil
}

// configure is the setting of a host under the network's configuration.
func (a *agent) configure(ctx context.Context, f facts.Facts, c lease.Config) (facts.Setting, error) {
	if err := a.checkRanges(c); err != nil {
		return facts.Setting{}, err
	}
	if err := c.Supported(); err != nil {
		return facts.Setting{}, fmt.Errorf("network configuration: %w", err)
	}
	if _, err := ways.Backend(c.Backend.Type); err != nil {
		return facts.Setting{}, err
	}
	f.TakeNetwork(c)
	if lacks := ways.Lacks(f); lacks != "" {
		return facts.Setting{}, fmt.Errorf("%w: %s", probe.ErrNoUnderlay, lacks)
	}
	if c.Backend.Type == lease.L2 {
		if a.kube == nil {
			return facts.Setting{}, fmt.Errorf("network configuration: Backend.Type %q needs the Kubernetes API, which knows where the pods are: give --kubeconfig", lease.L2)
		}
		f.Attach, f.Bridge, f.BridgeMAC = attach.L2, a.cfg.Bridge, a.bridgeMAC
	}
	self, err := a.self(ctx, f, c)
	if err != nil {
		return facts.Setting{}, err
	}
	also, err := a.otherSelf(ctx, f, c)
	return facts.Setting{Facts: f, Announced: lease.Announce(self, also...), PSK: presharedKey(c)}, err
}

// presharedKey is that of whichever of the configuration's backends is wireguard.
func presharedKey(c lease.Config) string {
	for _, b := range []lease.Backend{c.Backend, c.Next, c.Previous} {
		if b.Type == lease.WireGuard {
			return b.PSK
		}
	}
	return ""
}

// startFollow runs the loop that follows changes of the host and of the network's configuration.
func (a *agent) startFollow(ctx context.Context, g *errgroup.Group) error {
	host, err := probe.Watch(ctx, a.cfg.Underlay.Chosen())
	if err != nil {
		return err
	}
	l := loop.Loop{Name: "host", Step: a.follow, Every: loop.FullCheck, Log: a.log, Triggers: []loop.Trigger{loop.On(host, loop.ByHost), loop.On(a.live.Offers(), loop.ByPlan)}}
	l.Triggers = append(l.Triggers, loop.On(a.data.Retold(), loop.ByPlan))
	if a.paths != nil {
		l.Triggers = append(l.Triggers, loop.On(a.paths.Changed, loop.ByPlan))
	}
	if a.networkChanged != nil {
		l.Triggers = append(l.Triggers, loop.On(a.networkChanged, loop.ByPlan))
	}
	if a.clusterChanged != nil && a.cfg.KubeSubnetManager {
		public := make(chan struct{}, 1)
		g.Go(func() error { return a.watchPublic(ctx, a.clusterChanged[3], public) })
		l.Triggers = append(l.Triggers, loop.On(public, loop.ByPlan))
	}
	g.Go(func() error { return l.Run(ctx) })
	return nil
}

// follow takes up changes of the host's underlay and of the network's configuration. The order makes before it breaks: first the node can
// receive the new way, then it announces it, and the others go on sending by the old one until they have read that.
func (a *agent) follow(ctx context.Context, _ loop.Cause) (loop.Work, error) {
	if next := a.live.TakeUp(a.log); next != nil {
		a.nameIdle(a.settings.Facts(), next.Masquerade.Asked())
	}
	next, err := a.lookUnder(ctx)
	if errors.Is(err, errNoNetwork) {
		return loop.Work{}, nil
	}
	if errors.Is(err, probe.ErrNoUnderlay) {
		a.underlayLost.log = a.log
		a.underlayLost.say(time.Now(), err, underlayGone)
		a.stuckAt(underlayGone + ": " + err.Error())
		return loop.Work{}, nil
	}
	if err != nil {
		a.stuckAt(err.Error())
		return loop.Work{}, err
	}
	a.stuck.Store(nil)
	f := next.Facts
	if a.underlayLost.text != "" {
		a.log.Info("the underlay is back", "dev", f.Dev, "address", shownAddr(f), "mtu", f.MTU)
		a.underlayLost = reporting{}
		a.settings.Wake()
	}
	a.makeRoom(f, sysctl.Raise)
	old := a.settings.Get()
	next.Earlier = maps.Clone(old.Earlier)
	if old.Backend != next.Backend {
		if next.Earlier == nil {
			next.Earlier = map[string]overlay.Options{}
		}
		next.Earlier[old.Backend] = old.Options
	}
	a.turn(ctx, old, next)
	if a.settings.Set(next) {
		a.log.Info("the host, the network or a setting changed", "dev", next.Dev, "address", shownAddr(next.Facts), "mtu", next.MTU,
			"backend", next.Backend)
		a.doubt(next.Facts)
		if n, err := closeStale(vanished(old.Addrs, next.Addrs)); err != nil || n > 0 {
			a.log.Info("connections from addresses that are gone are made anew", "connections", n, "err", err)
		}
		if old.Announced != next.Announced || !reflect.DeepEqual(old.Other, next.Other) {
			if _, err = a.data.Step(ctx, loop.ByHost); err != nil {
				a.log.Debug("announced though not everything is in place", "err", err) // the network's loop reports and repeats it
			}
		}
	}
	return loop.Work{}, a.tell(ctx, next.Announced)
}

// turn makes a change from or to an encrypted network lose nothing: the seal comes after the paths were moved to the tunnels that are
// ready, and goes before they are moved away. A node that is not prepared is sealed first.
func (a *agent) turn(ctx context.Context, old, next facts.Setting) {
	var err error
	switch {
	case !old.Sealed() && next.Sealed() && a.data.Receives(ways.InForce(next.Facts)):
		next.Turning = true
		a.settings.Set(next)
		_, err = a.data.Step(ctx, loop.ByHost)
	case old.Sealed() && !next.Sealed():
		old.Turning = true
		a.settings.Set(old)
		_, err = a.proxy.Step(ctx, loop.ByHost)
	}
	if err != nil {
		a.log.Debug("the change goes on though not everything is in place", "err", err) // its loop reports and repeats it
	}
}

// tell announces what the node is, with what it can receive by now, when that is not what was announced before.
func (a *agent) tell(ctx context.Context, self api.Lease) error {
	l, ok := a.data.Announcement(self, a.settings.Facts())
	if !ok || l == a.announced {
		return nil
	}
	if l.Also != "" { // the packet filter must take what the others will send
		if _, err := a.proxy.Step(ctx, loop.ByHost); err != nil {
			return fmt.Errorf("announce what the node receives by: %w", err)
		}
	}
	err := a.announceSelf(l)
	if err == nil {
		a.announced = l
	}
	return err
}
