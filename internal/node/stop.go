package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/node/pod"
	"weft/internal/node/probe"
)

// minGrace is what is left to a container for its SIGTERM when its preStop hook took all the time.
const minGrace = 2 * time.Second

// kill stops a container in the background: its hook, SIGTERM, and SIGKILL when grace is over. why ends the event's sentence.
func (w *worker) kill(ctx context.Context, c *corev1.Container, grace time.Duration, why string) {
	w.mu.Lock()
	busy := w.killing[c.Name]
	w.killing[c.Name] = true
	w.mu.Unlock()
	if busy {
		return
	}
	go func() {
		w.stopContainer(ctx, c, grace, why)
		w.mu.Lock()
		delete(w.killing, c.Name)
		w.mu.Unlock()
		w.node.watch.invalidate()
		w.poke()
	}()
}

func (w *worker) isKilling(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.killing[name]
}

// stopContainer returns when the container has ended, or cannot be ended.
func (w *worker) stopContainer(ctx context.Context, c *corev1.Container, grace time.Duration, why string) {
	w.mu.Lock()
	p := w.latest
	w.mu.Unlock()
	message := "Stopping container " + c.Name
	if why != "" {
		message = fmt.Sprintf("Container %s %s", c.Name, why)
	}
	w.event(corev1.EventTypeNormal, "Killing", message, field(p, c))
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		began := time.Now()
		hook, cancel := context.WithTimeout(ctx, grace)
		if err := probe.Hook(hook, c.Lifecycle.PreStop, w.targetOf(ctx, p, c)); err != nil {
			w.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error(), field(p, c))
		}
		cancel()
		grace = max(grace-time.Since(began), minGrace)
	}
	ctx, cancel := context.WithTimeout(ctx, grace+actionTimeout)
	defer cancel()
	if err := w.node.config.Runtime.StopContainer(ctx, w.uid, c.Name, grace); err != nil && ctx.Err() == nil {
		w.node.log.Warn("container not stopped", "pod", p.Namespace+"/"+p.Name, "container", c.Name, "err", err)
	}
}

// end ends the pod: its containers, its address, its sandbox, its object.
func (w *worker) end(ctx context.Context, gone bool) (wait time.Duration, finished bool) {
	w.view.Stopping = true
	w.stopAllProbes()
	w.stopAll(ctx, gone)
	w.mu.Lock()
	stopped := w.stopped
	w.mu.Unlock()
	if !stopped && w.running() {
		w.report(false)
		return lookPeriod, false
	}
	if err := w.remove(ctx); err != nil {
		w.sayOnce("remove", "pod not removed, will be tried again", err)
		return retryFirst, false
	}
	delete(w.told, "remove")
	if gone {
		return 0, true
	}
	w.report(true)
	return lookPeriod, false
}

func (w *worker) running() bool {
	for _, c := range pod.All(w.view.Pod) {
		if w.view.Records[c.Name].Running() {
			return true
		}
	}
	return false
}

// stopAll begins to stop the containers, and again when the pod's grace became shorter meanwhile.
func (w *worker) stopAll(ctx context.Context, gone bool) {
	grace := w.grace(w.view.Pod)
	if gone {
		grace = min(grace, goneGrace)
	}
	deadline := time.Now().Add(grace)
	if !w.deadline.IsZero() && !deadline.Before(w.deadline.Add(-goneGrace)) {
		return
	}
	first := w.deadline.IsZero()
	w.deadline = deadline
	var mains, sides []*corev1.Container
	for _, c := range pod.All(w.view.Pod) {
		if !w.view.Records[c.Name].Running() {
			continue
		}
		if isInit(w.view.Pod, c) {
			sides = append([]*corev1.Container{c}, sides...)
		} else {
			mains = append(mains, c)
		}
	}
	go func() {
		w.stopThese(ctx, mains, sides, grace, first)
		w.mu.Lock()
		w.stopped = true
		w.mu.Unlock()
		w.node.watch.invalidate()
		w.poke()
	}()
}

// stopThese stops the containers side by side, then the sidecars in reverse order, all in one grace. Only the first time is it told.
func (w *worker) stopThese(ctx context.Context, mains, sides []*corev1.Container, grace time.Duration, first bool) {
	began := time.Now()
	stop := func(c *corev1.Container) {
		left := max(grace-time.Since(began), goneGrace)
		if first {
			w.stopContainer(ctx, c, left, "")
			return
		}
		if err := w.node.config.Runtime.StopContainer(ctx, w.uid, c.Name, left); err != nil && ctx.Err() == nil {
			w.node.log.Warn("container not stopped", "uid", w.uid, "container", c.Name, "err", err)
		}
	}
	var wg sync.WaitGroup
	for _, c := range mains {
		wg.Go(func() { stop(c) })
	}
	wg.Wait()
	for _, c := range sides {
		stop(c)
	}
}

func isInit(p *corev1.Pod, c *corev1.Container) bool {
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

// remove frees the pod's address and everything else of it on this host.
func (w *worker) remove(ctx context.Context) error {
	if w.view.Box == nil && w.detached {
		return nil
	}
	var err error
	if !w.view.Pod.Spec.HostNetwork {
		err = w.detach(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	err = errors.Join(err, w.node.config.Runtime.RemoveSandbox(ctx, w.uid))
	w.node.watch.invalidate()
	if err == nil {
		w.detached = true
	}
	return err
}
