// Package network keeps links, addresses, routes, neighbours, FDB entries and parameters of the host and of its pods as planned, and repairs what
// somebody else changes.
//
// Floor 4, programs.
package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/tunnels"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/kernel"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/runtime"
)

// Leases is the store of leases as the loop uses it. One that is ways.Deltas too makes changes of leases cheap.
type Leases interface {
	Own() (api.Lease, bool) // the node's own lease, once it has one
	Leases() []api.Lease    // all that are good, the own one too
}

// errUnknown says that the cluster's objects were not listed yet.
var errUnknown = errors.New("the cluster is not known yet")

// Loop keeps links, addresses, neighbours, FDB entries, routes and sysctls of the host and of its pods as planned.
type Loop struct {
	log      *slog.Logger
	settings *facts.InForce
	leases   Leases
	cluster  func() (api.Snapshot, bool)
	pods     *attachments.Book
	handle   *kernel.Netns
	tunnels  *tunnels.Engines
	seal     func(facts.Facts) error // has the rules in force that the network needs before it is planned; nil: there are none

	mayAttach func() error // why no pod may get an address now; nil: nothing speaks against it

	mu       sync.Mutex // one step at a time
	want     netstate.State
	planned  bool               // want was applied without an error
	ground   ways.Ground        // what want was planned from, for quick
	next     ways.Ground        // what plan planned from
	refused  map[string]bool    // leases without a path that were reported
	mender   mender             // repairs of the host's objects
	inside   map[string]*podNet // of the pods, by UID
	life     context.Context    //nolint:containedctx // of what watches the inside of pods, nil: nothing does
	spawn    func(func() error) // runs that
	healing  *loop.Healing
	made     chan struct{}           // receives after a step that changed something
	whole    chan struct{}           // receives after a look at the whole network
	kinds    map[ways.Kind]time.Time // ways in use, and until when those that no longer are stay
	leftover leftover
	told     basis         // of the last step that worked
	again    chan struct{} // receives when a step is due though nothing happened
	heard    chan struct{} // receives after that changed, while the network changes its backend
	podsSet  chan struct{} // receives after a pod was attached or detached
	steps    loop.Stats
	first    sync.Once
	ready    chan struct{} // closed after the first step that worked
}

// Stats counts for status and metrics.
type Stats struct {
	loop.Stats
	Tunnels *tunnels.Stats `json:"tunnels,omitempty"` // of backends that carry packets themselves
}

func newDataplane(log *slog.Logger, s *facts.InForce, l Leases, cluster func() (api.Snapshot, bool), pods *attachments.Book) (*Loop, error) {
	h, err := kernel.Open("")
	if err != nil {
		return nil, fmt.Errorf("open the host's network: %w", err)
	}
	return &Loop{
		log: log, settings: s, leases: l, cluster: cluster, pods: pods, handle: h,
		inside: map[string]*podNet{}, kinds: map[ways.Kind]time.Time{}, podsSet: make(chan struct{}, 1), made: make(chan struct{}, 1), whole: make(chan struct{}, 1),
		heard: make(chan struct{}, 1), again: make(chan struct{}, 1), ready: make(chan struct{}),
	}, nil
}

// plan is what the host and each of its pods want now.
func (d *Loop) plan(now time.Time) (host netstate.State, inPod map[string]netstate.State, b basis, err error) {
	stored, ok := d.leases.Own()
	if !ok {
		return netstate.State{}, nil, basis{}, ways.ErrNoLease
	}
	version, generation := d.version(), d.settings.Generation()
	d.next = ways.Ground{}
	s := d.settings.Get()
	own, all := s.Own(stored), d.leases.Leases()
	d.left(now, s, stored)
	f := d.besides(now, s.Facts)
	used, err := ways.Of(f, own, all)
	if err != nil {
		return netstate.State{}, nil, basis{}, err
	}
	keep := d.remember(now, used)
	if s.Other == nil && f.Other != nil {
		delete(d.kinds, ways.OtherKind(f)) // it stays for as long as it was left for
	}
	if len(keep) > 0 {
		if used, err = ways.Of(f, own, all, keep...); err != nil {
			return netstate.State{}, nil, basis{}, err
		}
	}
	if s.Backend == lease.L2 {
		snap, known := d.cluster()
		if !known {
			return netstate.State{}, nil, basis{}, errUnknown // nothing may be removed for want of knowledge
		}
		all = ways.Named(snap.Nodes, all)
		ways.Place(used, ways.Endpoints(snap.Nodes, all))
	}
	host, inPod = ways.PlanNode(f, used, own, all, d.pods.List())
	b = basis{setting: s, open: map[ways.Kind]bool{}}
	for _, w := range used {
		b.open[w.Kind] = true
	}
	if s.Other != nil {
		b.peers, _ = overlay.Peers(used[0].Self, all)
	}
	if s.Other == nil {
		d.next = ways.NewGround(version, generation, s.Facts, own, all, used, d.report(used[0].Self, all))
	}
	return host, inPod, b, nil
}

// remember notes the ways in use and returns those that are no longer and stay for a while.
func (d *Loop) remember(now time.Time, used []ways.Way) (keep []ways.Kind) {
	for _, w := range used {
		d.kinds[w.Kind] = now.Add(ways.Linger)
	}
	for k, until := range d.kinds {
		switch {
		case !until.After(now):
			delete(d.kinds, k)
		case !slices.ContainsFunc(used, func(w ways.Way) bool { return w.Kind == k }):
			keep = append(keep, k)
		}
	}
	// The latest first: of two with one VNI only one can be kept.
	slices.SortFunc(keep, func(a, b ways.Kind) int {
		return cmp.Or(d.kinds[b].Compare(d.kinds[a]), cmp.Compare(a.Type, b.Type), cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.Port, b.Port))
	})
	return keep
}

// Step is the loop's body.
func (d *Loop) Step(ctx context.Context, due loop.Cause) (loop.Work, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	notes := d.mender.fights.Ended(now)
	w, done := d.small(ctx, due)
	var err error
	if !done {
		w, err = d.locked(ctx)
	}
	d.steps.Steps++
	d.steps.LastError = ""
	if err != nil {
		d.steps.LastError = err.Error()
	}
	w.Paced = true
	w.Notes = append(notes, d.mender.fights.Repaired(now, w.Repaired, w.By)...)
	w.Fights = d.mender.fights.Report("network")
	w.Again = d.mender.again()
	return w, err
}

func (d *Loop) locked(ctx context.Context) (loop.Work, error) {
	host, inPod, b, err := d.plan(time.Now())
	if errors.Is(err, ways.ErrNoLease) || errors.Is(err, errUnknown) {
		return loop.Work{}, nil // their arrival is a trigger
	}
	if err != nil {
		return loop.Work{}, err
	}
	if d.seal != nil {
		if err := d.seal(d.settings.Facts()); err != nil {
			return loop.Work{}, err
		}
	}
	host = host.Freeze() // what the kernel is to have, and nearly all it has, are these objects
	before := d.want
	d.want, d.ground = host, d.next
	d.settle(ctx, host) // before ports are given to devices that are about to have other names
	tunnelErr := d.tunnels.Prepare(host, d.settings.Get().PSK)
	ops, err := converge(ctx, d.handle, host, d.mender.hold(time.Now(), d.planned, func(id netstate.ID) bool { return !unchanged(id, host, before) }))
	err = errors.Join(tunnelErr, err, d.tunnels.Apply(host))
	w := loop.Work{Ops: len(ops)}
	if d.planned {
		w.Repaired = repaired(ops, host, before)
		w.By = d.mender.seen(ops)
	}
	if e, ok := errors.AsType[*loop.UndoneError](err); ok {
		w.Repaired = append(w.Repaired, e.Objects...)
	}
	d.forget(ops)
	logOps(d.log, "host", ops)
	w.Ops += d.convergePods(ctx, inPod)
	d.planned = err == nil
	loop.Poke(d.whole)
	if w.Ops > 0 {
		loop.Poke(d.made)
	}
	d.steps.Ops += w.Ops
	if err == nil {
		b.unmet, err = d.meet(b, host)
	}
	if err == nil {
		d.done(b)
		d.first.Do(func() {
			d.steps.FirstOps = w.Ops
			d.log.Info("first check of the node's network done", "ops", w.Ops)
			close(d.ready)
		})
	}
	return w, err
}

// repaired names the objects of the ops that the plan before wanted, or did not want, in the same way: it was not the plan that changed.
func repaired(ops []netstate.Op, want, before netstate.State) []string {
	var out []string
	for _, op := range ops {
		if unchanged(netstate.IDOf(op.Object), want, before) {
			out = append(out, nameOf(op.Object))
		}
	}
	return out
}

// unchanged reports whether two plans say the same of an object.
func unchanged(id netstate.ID, want, before netstate.State) bool {
	now, wanted := want.Get(id)
	old, was := before.Get(id)
	return wanted == was && (!wanted || now.String() == old.String())
}

// Attach gives a sandbox its addresses and its interface.
func (d *Loop) Attach(ctx context.Context, s runtime.SandboxStatus) ([]netip.Addr, error) {
	own, ok := d.leases.Own()
	if !ok {
		return nil, fmt.Errorf("attach %s/%s: %w", s.Namespace, s.Name, ways.ErrNoLease)
	}
	if d.mayAttach != nil {
		if err := d.mayAttach(); err != nil {
			return nil, fmt.Errorf("attach %s/%s: %w", s.Namespace, s.Name, err)
		}
	}
	p, err := d.pods.Add(attach.Pod{UID: s.UID, Namespace: s.Namespace, Name: s.Name, Netns: s.Netns}, facts.Valid(own.Subnet, own.SubnetV6)...)
	if err != nil {
		return nil, err
	}
	loop.Poke(d.podsSet)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(s.UID)
	_, err = d.locked(ctx)
	done, perr := d.attached(s.UID)
	if err = errors.Join(err, perr); err != nil && !done { // another object's trouble is the loop's
		return nil, fmt.Errorf("attach %s/%s: %w", s.Namespace, s.Name, err)
	}
	return p.IPs, nil
}

// Detach takes a sandbox's addresses back and removes its interface.
func (d *Loop) Detach(ctx context.Context, uid string) error {
	gone, err := d.pods.Remove(uid)
	if err != nil || !gone {
		return err
	}
	loop.Poke(d.podsSet)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(uid)
	_, err = d.locked(ctx)
	return err
}

// Diff is what a step would do to the host now.
func (d *Loop) Diff(ctx context.Context) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	host, _, _, err := d.plan(time.Now())
	if err != nil {
		return nil, err
	}
	ops, err := difference(ctx, d.handle, host.Select(func(o netstate.Object) bool { return kernel.Applies(o.Kind()) }), nil)
	lines := make([]string, len(ops))
	for i, op := range ops {
		lines[i] = op.String()
	}
	return lines, err
}

// State returns what is wanted.
func (d *Loop) State() netstate.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return netstate.Union(d.want)
}

// Stats returns counters, for status.
func (d *Loop) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Stats: d.steps, Tunnels: d.tunnels.Stats()}
	if s.LastError == "" {
		s.LastError = d.podTrouble()
	}
	return s
}

// closeTunnels ends the engines after the step under way.
func (d *Loop) closeTunnels() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.tunnels.Close()
	d.tunnels = nil
	return err
}
