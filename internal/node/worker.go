package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/node/pod"
	"weft/internal/runtime"
)

// Times of a worker.
const (
	actionTimeout = 2 * time.Minute // of one call of the runtime or the network
	retryFirst    = time.Second     // of a sandbox that could not be made, doubling
	retryMax      = 30 * time.Second
	goneGrace     = time.Second // a pod that the API has no more is ended this fast
)

// worker brings one pod to where its object says it should be. Each step looks at everything again; what woke it does not matter.
type worker struct {
	node *program
	uid  string
	wake chan struct{}

	mu      sync.Mutex
	latest  *corev1.Pod
	gone    bool // from the API
	answers []answer
	killing map[string]bool // containers being stopped
	stopped bool            // all containers were stopped, for the pod's end

	// The loop's own.
	view      pod.View
	last      *corev1.PodStatus // as reported
	probes    map[string]*probing
	waits     map[string]time.Time // back-offs told of, by container: their end
	retry     time.Duration        // after the next failed sandbox
	retryAt   time.Time
	told      map[string]bool // messages said once
	detached  bool
	deadline  time.Time // of the containers' end; zero: the pod is not being ended
	reporting *reporter
}

func podUID(uid string) types.UID { return types.UID(uid) }

func newWorker(n *program, p *corev1.Pod) *worker {
	w := &worker{
		node: n, uid: string(p.UID), wake: make(chan struct{}, 1), latest: p, killing: map[string]bool{},
		probes: map[string]*probing{}, waits: map[string]time.Time{}, told: map[string]bool{},
	}
	w.view = pod.View{Pod: p, Records: pod.NewRecords(p)}
	w.reporting = newReporter(w)
	return w
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// update gives the worker its pod's newest object.
func (w *worker) update(p *corev1.Pod) {
	w.mu.Lock()
	same := w.latest == p
	w.latest = p
	w.mu.Unlock()
	if !same {
		w.poke()
	}
}

// leave tells the worker that its pod is gone from the API.
func (w *worker) leave() {
	w.mu.Lock()
	was := w.gone
	w.gone = true
	w.mu.Unlock()
	if !was {
		w.poke()
	}
}

// run steps until the pod is gone, or ctx ends.
func (w *worker) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the probes and the reporter
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() { w.reporting.run(ctx) })
	for {
		wait, finished := w.step(ctx)
		if finished {
			cancel()
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// step does what is to be done now and returns how long nothing is.
func (w *worker) step(ctx context.Context) (wait time.Duration, finished bool) {
	w.mu.Lock()
	p, gone := w.latest, w.gone
	w.mu.Unlock()
	box, err := w.node.watch.get(ctx, w.uid)
	if err != nil {
		w.sayOnce("list", "pod not looked at, will be tried again", err)
		return retryFirst, ctx.Err() != nil
	}
	delete(w.told, "list")
	w.look(p, box)
	w.takeAnswers(ctx)
	if gone || p.DeletionTimestamp != nil {
		return w.end(ctx, gone)
	}
	wait = lookPeriod
	if pod.Ended(p) {
		w.rest(ctx)
	} else {
		wait = w.advance(ctx)
		w.report(false)
	}
	return wait, false
}

// look takes in what the API and the runtime say now.
func (w *worker) look(p *corev1.Pod, box *runtime.SandboxStatus) {
	v := &w.view
	v.Pod, v.HostIPs, v.Now = p, w.node.config.Addresses(), time.Now()
	if box == nil || box.PID == 0 || v.Box != nil && v.Box.PID != box.PID { // another sandbox than the one attached, or none
		v.Attached = false
	}
	v.Box = box
	for _, c := range pod.All(p) {
		r := v.Records[c.Name]
		if r == nil {
			r = &pod.Record{}
			v.Records[c.Name] = r
		}
		r.Observe(pod.Latest(box, c.Name), w.idPrefix())
		if !r.Running() {
			w.stopProbes(c.Name)
		}
	}
}

// idPrefix is what kubectl shows before a container's ID: the runtime's name.
func (w *worker) idPrefix() string { return idPrefix(w.node.config.RuntimeVersion) }

// rest leaves an ended pod's logs where they are and frees its address.
func (w *worker) rest(ctx context.Context) {
	w.stopAllProbes()
	for _, c := range pod.All(w.view.Pod) {
		if w.view.Records[c.Name].Running() {
			w.kill(ctx, c, w.grace(w.view.Pod), "")
		}
	}
	if w.detached || w.view.Box == nil || w.view.Pod.Spec.HostNetwork {
		return
	}
	if err := w.detach(ctx); err != nil {
		w.sayOnce("detach", "pod's network not taken down, will be tried again", err)
	}
}

func (w *worker) detach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if err := w.node.config.Network.Detach(ctx, w.uid); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	w.detached, w.view.Attached = true, false
	return nil
}

// advance starts what is to run, and returns when to look again.
func (w *worker) advance(ctx context.Context) time.Duration {
	plan := pod.Decide(&w.view)
	if plan.Ended {
		for _, c := range plan.Stop {
			w.kill(ctx, c, w.grace(w.view.Pod), "")
		}
		return lookPeriod
	}
	if !w.sandbox(ctx) {
		return max(time.Until(w.retryAt), 10*time.Millisecond)
	}
	again := false
	for _, c := range plan.Start {
		if w.isKilling(c.Name) {
			continue
		}
		w.start(ctx, c)
		again = true
	}
	w.tellWaits(&plan)
	w.runProbes(ctx)
	if again { // a start changes what is to be done next
		return 10 * time.Millisecond
	}
	if plan.Next.IsZero() {
		return lookPeriod
	}
	return max(time.Until(plan.Next), time.Millisecond)
}

// sandbox makes sure that the pod's namespaces and addresses are there.
func (w *worker) sandbox(ctx context.Context) bool {
	v := &w.view
	if v.Box != nil && v.Box.PID != 0 && v.Attached {
		return true
	}
	if time.Now().Before(w.retryAt) {
		return false
	}
	if err := w.node.config.NetworkReady(); err != nil && !v.Pod.Spec.HostNetwork {
		if !w.told["network"] {
			w.event(corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: "+err.Error(), "")
		}
		w.told["network"], w.retryAt = true, time.Now().Add(retryFirst)
		return false
	}
	delete(w.told, "network")
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if err := w.makeSandbox(ctx); err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.event(corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error(), "")
		}
		w.retry = min(max(2*w.retry, retryFirst), retryMax)
		w.retryAt = time.Now().Add(w.retry)
		return false
	}
	w.retry = 0
	return true
}

func (w *worker) makeSandbox(ctx context.Context) error {
	v, c := &w.view, w.node.config
	if v.Box == nil || v.Box.PID == 0 {
		if v.Box != nil {
			w.event(corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.", "")
		}
		box, err := c.Runtime.CreateSandbox(ctx, pod.Sandbox(v.Pod, c.Nameservers, c.Domain))
		w.node.watch.invalidate()
		if err != nil {
			return err
		}
		v.Box = &box
	}
	v.IPs, w.detached = nil, false
	if !v.Pod.Spec.HostNetwork {
		ips, err := c.Network.Attach(ctx, *v.Box)
		if err != nil {
			return fmt.Errorf("set up the pod's network: %w", err)
		}
		v.IPs = ips
	}
	v.Attached = true
	return nil
}

// podIPs are the pod's addresses, the host's for a pod on its network.
func (w *worker) podIPs() []netip.Addr {
	if w.view.Pod.Spec.HostNetwork {
		return w.view.HostIPs
	}
	return w.view.IPs
}

func (w *worker) grace(p *corev1.Pod) time.Duration {
	switch {
	case p.DeletionGracePeriodSeconds != nil:
		return max(time.Duration(*p.DeletionGracePeriodSeconds)*time.Second, goneGrace)
	case p.Spec.TerminationGracePeriodSeconds != nil:
		return max(time.Duration(*p.Spec.TerminationGracePeriodSeconds)*time.Second, goneGrace)
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

func (w *worker) sayOnce(key, message string, err error) {
	if !w.told[key] {
		w.node.log.Warn(message, "pod", w.view.Pod.Namespace+"/"+w.view.Pod.Name, "err", err)
	}
	w.told[key] = true
}
