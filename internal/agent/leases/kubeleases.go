// Package leases is what the agent needs of leases beyond lease and store: the store of clusters whose nodes have podCIDRs, and what is said of
// the own lease and of those that get no path.
//
// Floor 4, programs.
package leases

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store"
	"weft/internal/store/file"
)

// Kube is the lease store of clusters whose nodes have podCIDRs: a node's lease is its podCIDR and flannel's annotations.
type Kube struct {
	log     *slog.Logger
	path    string // of the network configuration
	changed chan struct{}
	asked   chan struct{} // self, the configuration or the host's routes changed
	network chan struct{} // receives when the configuration changed
	event   func(string)  // tells the cluster of a refused lease; may be nil

	mu        sync.Mutex
	config    lease.Config
	configErr string
	self      api.Lease
	avoid     []claim.HostRoute
	now       kubeView
	since     time.Time // of the problem
	reported  map[string]string
	journal   store.Journal // of now.peers
	read      nodeReader
}

// kubeView is what a snapshot of the nodes says under a configuration.
type kubeView struct {
	own     api.Lease
	stale   bool // the own node's annotations do not say what they should
	peers   []api.Lease
	refused []claim.Refusal
	problem string // why the own lease cannot be used
}

// OpenKube reads the network configuration from the file. The keys of the nodes' annotations begin with prefix.
func OpenKube(log *slog.Logger, path, prefix string) (k *Kube, content []byte, err error) {
	text, err := file.Read(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--net-config-path=%s: %w", path, err)
	}
	c, warnings, err := lease.ParseConfig(text)
	if err != nil {
		return nil, nil, fmt.Errorf("--net-config-path=%s: %w", path, err)
	}
	for _, w := range warnings {
		log.Warn("network configuration", "file", path, "warning", w)
	}
	return &Kube{
		log: log, path: path, read: nodeReader{prefix: prefix}, config: c, changed: make(chan struct{}, 1), asked: make(chan struct{}, 1),
		network: make(chan struct{}, 1), reported: map[string]string{},
	}, text, nil
}

// Begin says, before Run, what the node tells the others of itself, what the host reaches without weft, and whom to tell of a refused lease.
func (k *Kube) Begin(self api.Lease, avoid []claim.HostRoute, event func(string)) {
	k.self, k.avoid, k.event = self, avoid, event
}

// NetworkChanged receives when the configuration changed.
func (k *Kube) NetworkChanged() <-chan struct{} { return k.network }

// SetConfig takes up a changed file; what cannot be used leaves the last good one in force.
func (k *Kube) SetConfig(text []byte, err error) {
	var c lease.Config
	var warnings []string
	if err == nil {
		c, warnings, err = lease.ParseConfig(text)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.configErr = fmt.Sprintf("--net-config-path=%s is not taken up, the last good configuration stays: %v", k.path, err)
		k.log.Warn(k.configErr)
		loop.Poke(k.asked)
		return
	}
	for _, w := range warnings {
		k.log.Warn("network configuration", "file", k.path, "warning", w)
	}
	if k.config != c || k.configErr != "" {
		k.log.Info("network configuration read", "file", k.path, "backend", c.Backend.Type)
	}
	k.config, k.configErr = c, ""
	loop.Poke(k.asked)
	loop.Poke(k.network)
}

// NetworkConfig is the last good configuration.
func (k *Kube) NetworkConfig() (lease.Config, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config, true
}

// Run follows the nodes and publishes the own lease through annotate when the node does not say it.
func (k *Kube) Run(
	ctx context.Context, cluster func() (api.Snapshot, bool), nodes <-chan struct{}, annotate func(context.Context, api.Lease) error,
) error {
	l := loop.Loop{Name: "leases", Every: loop.FullCheck, Log: k.log, Triggers: []loop.Trigger{loop.On(nodes, loop.ByPlan), loop.On(k.asked, loop.ByPlan)}}
	l.Step = func(ctx context.Context, _ loop.Cause) (loop.Work, error) {
		snap, known := cluster()
		if !known {
			return loop.Work{}, nil
		}
		own, stale := k.take(snap, time.Now())
		if stale {
			if err := annotate(ctx, own); err != nil {
				return loop.Work{}, fmt.Errorf("publish the lease: %w", err)
			}
		}
		return loop.Work{}, nil
	}
	return l.Run(ctx)
}

// Announce changes what the node tells the others of itself.
func (k *Kube) Announce(self api.Lease) {
	k.mu.Lock()
	k.self = self
	k.mu.Unlock()
	loop.Poke(k.asked)
}

// AvoidRoutes changes what the host reaches by itself.
func (k *Kube) AvoidRoutes(routes []claim.HostRoute) {
	k.mu.Lock()
	k.avoid = routes
	k.mu.Unlock()
	loop.Poke(k.asked)
}

// take makes a snapshot of the nodes the state of the store, and reports what is new about it.
func (k *Kube) take(snap api.Snapshot, now time.Time) (own api.Lease, stale bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.read.nodes(k.config, k.self, k.avoid, snap.Nodes)
	if v.problem != "" {
		// What the node had goes on being forwarded.
		v.own, v.stale = k.now.own, false
	}
	if k.configErr != "" && v.problem == "" {
		v.problem = k.configErr
	}
	if v.problem != k.now.problem {
		k.say(v.problem, now)
	}
	k.report(v.refused)
	d := peersChanged(k.now.peers, v.peers)
	same := v.own == k.now.own && len(d.Gone)+len(d.Fresh) == 0 && v.problem == k.now.problem
	switch {
	case k.journal.Version() == 0 || len(d.Gone)+len(d.Fresh) > maxPeersChanged:
		k.journal.Reset()
	case len(d.Gone)+len(d.Fresh) > 0:
		k.journal.Add(d)
	}
	k.now = v
	if !same {
		loop.Poke(k.changed)
	}
	return v.own, v.stale
}

// say logs that the own lease's problem is another one.
func (k *Kube) say(problem string, now time.Time) {
	switch {
	case problem == "":
		k.log.Info("the node's lease is well again")
		k.since = time.Time{}
		return
	case k.since.IsZero():
		k.since = now
	}
	if problem != k.configErr { // which was said when the file was read
		k.log.Warn("the node's lease: " + problem)
	}
}

// report tells of refused leases, once for each value and reason.
func (k *Kube) report(refused []claim.Refusal) {
	present := map[string]string{}
	for _, r := range refused {
		mark := r.Value + "\x00" + r.Reason
		present[r.Key] = mark
		if k.reported[r.Key] == mark {
			continue
		}
		k.log.Warn("lease refused: "+r.Reason, "key", r.Key, "value", r.Value)
		if k.event != nil {
			k.event(r.Reason)
		}
	}
	k.reported = present
}

// Own returns the node's lease once it has a podCIDR.
func (k *Kube) Own() (api.Lease, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now.own, k.now.own.Subnet.IsValid() || k.now.own.SubnetV6.IsValid()
}

// Leases returns the leases of all nodes that have one.
func (k *Kube) Leases() []api.Lease {
	own, ok := k.Own()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !ok {
		return slices.Clone(k.now.peers)
	}
	return append([]api.Lease{own}, k.now.peers...)
}

// maxPeersChanged bounds what is told of as single changes.
const maxPeersChanged = 64

// Delta returns the version of the list of peers and how it changed since an earlier one, as the etcd store does.
func (k *Kube) Delta(since uint64) (now uint64, d claim.Delta, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.journal.Since(since)
}

// peersChanged compares lists in order of nodes' names.
func peersChanged(before, after []api.Lease) (d claim.Delta) {
	for len(before)+len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Node < after[0].Node:
			d.Gone, before = append(d.Gone, before[0]), before[1:]
		case len(before) == 0 || after[0].Node < before[0].Node:
			d.Fresh, after = append(d.Fresh, after[0]), after[1:]
		default:
			if before[0] != after[0] {
				d.Gone, d.Fresh = append(d.Gone, before[0]), append(d.Fresh, after[0])
			}
			before, after = before[1:], after[1:]
		}
	}
	return d
}

// Changed receives when a lease changed.
func (k *Kube) Changed() <-chan struct{} { return k.changed }

// Status is what is said of the lease; believes is whether new pods may get addresses of it.
func (k *Kube) Status() (s Status, believes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s = Status{Phase: claim.Held.String(), Permanent: true, Problem: k.now.problem, Since: k.since, Refused: refusedOf(k.now.refused)}
	if !k.now.own.Subnet.IsValid() && !k.now.own.SubnetV6.IsValid() {
		s.Phase, s.Permanent = claim.Seeking.String(), false
	}
	return s, s.Permanent && (s.Problem == "" || s.Problem == k.configErr)
}
