package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"weft/internal/agent/services"
	"weft/internal/agent/status"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/node"
	"weft/internal/runtime/process"
)

// runNode is the part of the agent that Kubernetes calls a kubelet.
func (a *agent) runNode(ctx context.Context) error {
	rt, err := process.New(process.Config{RunDir: a.cfg.RunDir, StateDir: a.cfg.StateDir, Log: a.log})
	if err != nil {
		return err
	}
	defer rt.Close()
	a.awaitNetwork(ctx)
	var listen netip.AddrPort
	if a.cfg.KubeletPort != 0 {
		listen = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(a.cfg.KubeletPort))
		if a.settings.Facts().IPv6 {
			listen = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(a.cfg.KubeletPort))
		}
	}
	return node.Run(ctx, node.Config{
		Name:         a.cfg.NodeName,
		API:          a.kube,
		Pods:         a.kube.WatchPods(ctx, a.cfg.NodeName),
		Events:       a.kube.Events(ctx, "weft", a.cfg.NodeName),
		Runtime:      rt,
		Network:      a.data,
		Addresses:    a.addresses,
		NetworkReady: a.networkReady,
		Services:     a.services,
		ProbeInPod:   a.settings.Facts().Backend == lease.L2,
		Listen:       listen,
		StateDir:     a.cfg.StateDir,
		ClientCA:     a.kube.CA(),
		Version:      a.cfg.Version,
		Log:          a.log,
	})
}

// awaitNetwork gives the data path a moment before the node speaks of itself: an agent that restarts would else tell the scheduler
// that its network is gone. A new node whose podCIDR comes only after it has registered does not wait.
func (a *agent) awaitNetwork(ctx context.Context) {
	const moment = 5 * time.Second
	timer := time.NewTimer(moment)
	defer timer.Stop()
	synced := a.watch.Synced()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.data.Ready():
			return
		case <-timer.C:
			return
		case <-synced:
			synced = nil
			if _, ok := a.leases.Own(); !ok && a.cfg.KubeSubnetManager && !a.hasPodCIDR() {
				return
			}
		}
	}
}

// addresses are the node's, as Kubernetes shall know them: others can't use link-local ones.
func (a *agent) addresses() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(a.settings.Facts().Addrs), netip.Addr.IsLinkLocalUnicast)
}

func (a *agent) hasPodCIDR() bool {
	return slices.ContainsFunc(a.watch.Objects().Nodes, func(n api.Node) bool { return n.Name == a.cfg.NodeName && len(n.PodCIDRs) > 0 })
}

func (a *agent) networkReady() error {
	select {
	case <-a.data.Ready():
		return nil
	default:
	}
	if l := a.leaseStatus(); l != nil && l.Problem != "" {
		return fmt.Errorf("%w: %s", ways.ErrNoLease, l.Problem)
	}
	return ways.ErrNoLease
}

func (a *agent) services() []api.ServicePort {
	snap, _ := a.everything()
	return snap.Services
}

// Status is what the agent says of itself.
func (a *agent) Status() status.Status {
	own, _ := a.leases.Own()
	network := a.data.Stats()
	f := a.settings.Facts()
	filter := a.proxy.Report(f.ProxyMode)
	s := status.Status{
		Node: a.cfg.NodeName, Backend: f.Backend, ProxyMode: f.ProxyMode, Attach: string(f.Attach),
		Pods: len(a.pods.List()), Peers: peersOf(a.leases.Leases(), own), Services: filter.Ports, Network: network, Rules: filter.Stats,
		Paths: a.paths.List(), Fights: a.healing.List(), ForgottenFlows: filter.Forgotten,
	}
	s.Edge = a.edgeStatus(network.Tunnels)
	if own.Subnet.IsValid() {
		s.Subnet = own.Subnet.String()
	}
	if own.SubnetV6.IsValid() {
		s.SubnetV6 = own.SubnetV6.String()
	}
	s.Settings, s.Relay = a.live.List(), filter.Relay
	s.Warnings = slices.Concat(a.apiWarnings(), a.underlayWarnings(), filter.Warnings, s.Settings.Warnings(), services.FewFiles(s.Relay))
	s.ServiceLimits, s.Metrics = filter.Limits, []func(io.Writer){a.healing.WriteMetrics, a.proxy.WriteMetrics, a.kube.WriteMetrics, a.watch.WriteMetrics}
	turnStatus(&s, filter)
	s.Lease = a.leaseStatus()
	written, why := a.subnetEnv.state()
	if why != "" {
		s.Warnings = append(s.Warnings, why)
	}
	s.Converged = a.Ready() == nil && network.LastError == "" && filter.Stats.LastError == "" && written
	return s
}

// Ready says why the agent has not yet done its first work, or nil.
func (a *agent) Ready() error {
	if err := a.networkReady(); err != nil {
		return err
	}
	select {
	case <-a.proxy.Ready():
		return nil
	default:
		return errNoRules
	}
}

// errNoRules says that the service rules were not programmed yet.
var errNoRules = errors.New("the service rules are not programmed yet")

// peersOf counts the leases that are not the own one.
func peersOf(all []api.Lease, own api.Lease) int {
	n := 0
	for _, l := range all {
		if l.Subnet != own.Subnet || l.SubnetV6 != own.SubnetV6 {
			n++
		}
	}
	return n
}
