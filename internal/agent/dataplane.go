package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"

	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/kernel"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/runtime"
)

// leases is the store of leases as the agent uses it.
type leases interface {
	Own() (api.Lease, bool) // the node's own lease, once it has one
	Leases() []api.Lease    // all that are good, the own one too
	Changed() <-chan struct{}
}

// errNoLease says that the node has no subnet yet.
var errNoLease = errors.New("no subnet is leased yet")

// dataplane keeps links, addresses, neighbours, FDB entries, routes and sysctls of the host and of its pods as planned.
type dataplane struct {
	log     *slog.Logger
	facts   Facts
	backend overlay.Backend
	leases  leases
	pods    *attachments
	handle  *kernel.Netns

	mu      sync.Mutex // one step at a time
	want    netstate.State
	checked map[string]bool // pods whose inside was found or made right, by UID
	steps   stepStats
	first   sync.Once
	ready   chan struct{} // closed after the first step that worked
}

// stepStats counts for status and metrics.
type stepStats struct {
	Steps     int    `json:"steps"`
	Ops       int    `json:"ops"`
	FirstOps  int    `json:"firstOps"` // of the first step: 0 after a restart with everything in place
	LastError string `json:"lastError,omitempty"`
}

func newDataplane(log *slog.Logger, facts Facts, b overlay.Backend, l leases, pods *attachments) (*dataplane, error) {
	h, err := kernel.Open("")
	if err != nil {
		return nil, fmt.Errorf("open the host's network: %w", err)
	}
	return &dataplane{
		log: log, facts: facts, backend: b, leases: l, pods: pods, handle: h,
		checked: map[string]bool{}, ready: make(chan struct{}),
	}, nil
}

// plan is what the host and each of its pods want now.
func (d *dataplane) plan() (host netstate.State, inPod map[string]netstate.State, err error) {
	own, ok := d.leases.Own()
	if !ok {
		return netstate.State{}, nil, errNoLease
	}
	host, inPod = planNode(d.facts, d.backend, own, d.leases.Leases(), d.pods.pods())
	return host, inPod, nil
}

// planNode is the overlay's and the attachments' plan for one node.
func planNode(f Facts, b overlay.Backend, own api.Lease, all []api.Lease, pods []attach.Pod) (netstate.State, map[string]netstate.State) {
	host, inPod := attach.Plan(f.attachConfig(own, b), pods)
	if f.ServiceRange.IsValid() && !f.Gateway.IsValid() {
		// Without a default route a process of the host could not even send to a service: rules see packets only after the routes.
		v6 := f.ServiceRange.Addr().Is6()
		host.Add(netstate.Route{Dst: f.ServiceRange, Dev: f.Dev, Src: f.addr(v6), Scope: "link"})
	}
	return netstate.Union(b.Plan(f.self(own), all), host), inPod
}

// step is the dataplane's loop body.
func (d *dataplane) step(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.locked(ctx)
	d.steps.Steps++
	d.steps.LastError = ""
	if err != nil {
		d.steps.LastError = err.Error()
		return err
	}
	return nil
}

func (d *dataplane) locked(ctx context.Context) error {
	host, inPod, err := d.plan()
	if errors.Is(err, errNoLease) {
		return nil // the lease's arrival is a trigger
	}
	if err != nil {
		return err
	}
	d.want = host
	ops, err := converge(ctx, d.handle, host)
	d.forget(ops)
	n := len(ops)
	logOps(d.log, "host", ops)
	errs := []error{err}
	for _, p := range d.pods.pods() {
		if d.checked[p.UID] {
			continue
		}
		podOps, err := d.pod(ctx, p, inPod[p.UID])
		n += podOps
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	d.steps.Ops += n
	if err == nil {
		d.first.Do(func() {
			d.steps.FirstOps = n
			d.log.Info("first check of the node's network done", "ops", n)
			close(d.ready)
		})
	}
	return err
}

// pod brings the inside of a pod to the plan. A pod whose namespace is gone is the node's to remove, not an error here.
func (d *dataplane) pod(ctx context.Context, p attach.Pod, want netstate.State) (int, error) {
	if _, err := os.Stat(p.Netns); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	ops, err := convergePod(ctx, p.Netns, want)
	logOps(d.log, "pod "+p.Namespace+"/"+p.Name, ops)
	if err != nil {
		return len(ops), fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	d.checked[p.UID] = true
	return len(ops), nil
}

// forget marks pods whose veth pair was made anew: their inside is gone with the old pair.
func (d *dataplane) forget(ops []netstate.Op) {
	made := map[string]bool{}
	for _, op := range ops {
		if op.Object.Kind() == netstate.KindLink {
			made[op.Object.Key()] = true
		}
	}
	for uid := range d.checked {
		if made[attach.HostInterface(uid)] {
			delete(d.checked, uid)
		}
	}
}

// Attach gives a sandbox its addresses and its interface.
func (d *dataplane) Attach(ctx context.Context, s runtime.SandboxStatus) ([]netip.Addr, error) {
	own, ok := d.leases.Own()
	if !ok {
		return nil, fmt.Errorf("attach %s/%s: %w", s.Namespace, s.Name, errNoLease)
	}
	p, err := d.pods.add(attach.Pod{UID: s.UID, Namespace: s.Namespace, Name: s.Name, Netns: s.Netns}, valid(own.Subnet, own.SubnetV6)...)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.checked, s.UID)
	if err := d.locked(ctx); err != nil && !d.checked[s.UID] { // another object's trouble is the loop's
		return nil, fmt.Errorf("attach %s/%s: %w", s.Namespace, s.Name, err)
	}
	return p.IPs, nil
}

func valid(all ...netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// Detach takes a sandbox's addresses back and removes its interface.
func (d *dataplane) Detach(ctx context.Context, uid string) error {
	gone, err := d.pods.remove(uid)
	if err != nil || !gone {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.checked, uid)
	return d.locked(ctx)
}

// diff is what a step would do to the host now.
func (d *dataplane) diff(ctx context.Context) ([]string, error) {
	host, _, err := d.plan()
	if err != nil {
		return nil, err
	}
	ops, err := difference(ctx, d.handle, host.Select(func(o netstate.Object) bool { return kernel.Applies(o.Kind()) }))
	lines := make([]string, len(ops))
	for i, op := range ops {
		lines[i] = op.String()
	}
	return lines, err
}

// state returns what is wanted and counters, for status.
func (d *dataplane) state() (netstate.State, stepStats) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.want, d.steps
}
