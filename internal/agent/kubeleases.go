package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/store/kube"
)

// kubeLeases is the lease store of clusters whose nodes have podCIDRs: a node's lease is its podCIDR and flannel's annotations.
type kubeLeases struct {
	log     *slog.Logger
	watch   *kube.Watch
	config  lease.Config
	changed chan struct{}
	asked   chan struct{} // self changed

	mu      sync.Mutex
	self    api.Lease
	own     api.Lease
	peers   []api.Lease
	refused map[string]string // by node: what was reported, to say it once
}

// openKubeLeases reads the network configuration from the file.
func openKubeLeases(log *slog.Logger, watch *kube.Watch, path string) (*kubeLeases, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--net-config-path: %w", err)
	}
	c, warnings, err := lease.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, w := range warnings {
		log.Warn("network configuration", "file", path, "warning", w)
	}
	return &kubeLeases{log: log, watch: watch, config: c, changed: make(chan struct{}, 1), asked: make(chan struct{}, 1), refused: map[string]string{}}, nil
}

// run follows the nodes and publishes the own lease through annotate when it is new.
func (k *kubeLeases) run(ctx context.Context, nodes <-chan struct{}, annotate func(context.Context, api.Lease) error) error {
	l := loop{name: "leases", every: fullCheck, log: k.log, triggers: []trigger{{nodes, byPlan}, {k.asked, byPlan}}}
	l.step = func(ctx context.Context, _ cause) (work, error) {
		select {
		case <-k.watch.Synced():
		default:
			return work{}, nil
		}
		own, fresh, err := k.read(k.watch.Snapshot())
		if err != nil {
			return work{}, err
		}
		if fresh {
			if err := annotate(ctx, own); err != nil {
				return work{}, fmt.Errorf("publish the lease: %w", err)
			}
		}
		return work{}, nil
	}
	return l.run(ctx)
}

// announce changes what the node tells the others of itself.
func (k *kubeLeases) announce(self api.Lease) {
	k.mu.Lock()
	k.self = self
	k.mu.Unlock()
	poke(k.asked)
}

// read takes the leases from the nodes; fresh says that the own node's annotations do not say what they should.
func (k *kubeLeases) read(snap api.Snapshot) (own api.Lease, fresh bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var peers []api.Lease
	for _, n := range snap.Nodes {
		l, err := lease.FromNode(n, lease.AnnotationPrefix)
		if n.Name == k.self.Node {
			own = k.self
			for _, p := range n.PodCIDRs {
				if p.Addr().Is6() {
					own.SubnetV6 = p
				} else {
					own.Subnet = p
				}
			}
			l.Expiry = own.Expiry
			fresh = err != nil || l != own
			continue
		}
		if err == nil {
			err = k.config.Check(l)
		}
		if errors.Is(err, lease.ErrNotManaged) {
			continue // not a node of the overlay
		}
		if err != nil {
			k.refuse(n.Name, err)
			continue
		}
		delete(k.refused, n.Name)
		peers = append(peers, l)
	}
	if !own.Subnet.IsValid() && !own.SubnetV6.IsValid() {
		return own, false, nil // no podCIDR yet
	}
	if err := k.config.Check(own); err != nil {
		return own, false, fmt.Errorf("podCIDR of %s: %w", k.self.Node, err)
	}
	k.own, k.peers = own, peers
	poke(k.changed)
	return own, fresh, nil
}

// refuse reports a node's lease that can't be used, once for each reason.
func (k *kubeLeases) refuse(node string, err error) {
	if k.refused[node] == err.Error() {
		return
	}
	k.refused[node] = err.Error()
	k.log.Warn("lease not used", "node", node, "err", err)
}

// Own returns the node's lease once it has a podCIDR.
func (k *kubeLeases) Own() (api.Lease, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.own, k.own.Subnet.IsValid() || k.own.SubnetV6.IsValid()
}

// Leases returns the leases of all nodes that have one.
func (k *kubeLeases) Leases() []api.Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]api.Lease{k.own}, k.peers...)
}

// Changed receives when a lease changed.
func (k *kubeLeases) Changed() <-chan struct{} { return k.changed }
