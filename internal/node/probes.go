package node

import (
	"context"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/node/pod"
	"weft/internal/node/probe"
	"weft/internal/runtime"
)

// probing is the probes that run for one start of a container.
type probing struct {
	id      string
	started bool // past the startup probe
	cancel  context.CancelFunc
}

// answer is one answer of a probe, on its way to the worker's loop.
type answer struct {
	container, id, kind string
	probe.Report
}

// Kinds of probes, as events name them.
const (
	startup   = "Startup"
	liveness  = "Liveness"
	readiness = "Readiness"
)

// runProbes runs the probes of every running container: the startup probe alone until it has succeeded, then the others.
func (w *worker) runProbes(ctx context.Context) {
	for _, c := range pod.All(w.view.Pod) {
		r := w.view.Records[c.Name]
		if !r.Running() || isInit(w.view.Pod, c) && !sidecar(c) {
			continue
		}
		started := r.IsStarted(c)
		if p := w.probes[c.Name]; p != nil {
			if p.id == r.Status.ID && p.started == started {
				continue
			}
			w.stopProbes(c.Name)
		}
		ctx, cancel := context.WithCancel(ctx)
		w.probes[c.Name] = &probing{id: r.Status.ID, started: started, cancel: cancel}
		if !started {
			w.probe(ctx, c, r.Status, startup, c.StartupProbe)
			continue
		}
		w.probe(ctx, c, r.Status, liveness, c.LivenessProbe)
		w.probe(ctx, c, r.Status, readiness, c.ReadinessProbe)
	}
}

func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (w *worker) probe(ctx context.Context, c *corev1.Container, st *runtime.ContainerStatus, kind string, p *corev1.Probe) {
	if p == nil {
		return
	}
	target := w.target(c)
	go probe.Run(ctx, p, st.StartedAt, target, func(r probe.Report) {
		w.mu.Lock()
		w.answers = append(w.answers, answer{container: c.Name, id: st.ID, kind: kind, Report: r})
		w.mu.Unlock()
		w.poke()
	})
}

// target is where the container's probes and hooks look.
func (w *worker) target(c *corev1.Container) probe.Target {
	t := probe.Target{Container: c, Exec: func(ctx context.Context, cmd []string, out io.Writer) (int, error) {
		return w.node.config.Runtime.Exec(ctx, w.uid, c.Name, cmd, runtime.Stream{Stdout: out, Stderr: out})
	}}
	if ips := w.podIPs(); len(ips) > 0 {
		t.Host = ips[0].String()
	}
	if w.node.config.ProbeInPod && w.view.Box != nil {
		t.Netns = w.view.Box.Netns
	}
	return t
}

// targetOf is target for a goroutine that is not the worker's loop: it asks the API's object and the runtime.
func (w *worker) targetOf(ctx context.Context, p *corev1.Pod, c *corev1.Container) probe.Target {
	t := probe.Target{Container: c, Host: p.Status.PodIP, Exec: func(ctx context.Context, cmd []string, out io.Writer) (int, error) {
		return w.node.config.Runtime.Exec(ctx, w.uid, c.Name, cmd, runtime.Stream{Stdout: out, Stderr: out})
	}}
	if box, err := w.node.watch.get(ctx, w.uid); err == nil && box != nil && w.node.config.ProbeInPod {
		t.Netns = box.Netns
	}
	return t
}

// takeAnswers acts on what the probes said since the last step.
func (w *worker) takeAnswers(ctx context.Context) {
	w.mu.Lock()
	answers := w.answers
	w.answers = nil
	w.mu.Unlock()
	for _, a := range answers {
		r := w.view.Records[a.container]
		if r == nil || !r.Running() || r.Status.ID != a.id || w.view.Stopping {
			continue
		}
		for _, c := range pod.All(w.view.Pod) {
			if c.Name == a.container {
				w.takeAnswer(ctx, c, r, a)
			}
		}
	}
}

func (w *worker) takeAnswer(ctx context.Context, c *corev1.Container, r *pod.Record, a answer) {
	if a.Err != nil {
		w.event(corev1.EventTypeWarning, "Unhealthy", a.kind+" probe failed: "+a.Err.Error(), field(w.view.Pod, c))
	}
	switch a.kind {
	case readiness:
		r.Ready = a.OK
	case startup:
		r.Started = r.Started || a.OK
		if a.Reached && !a.OK {
			w.kill(ctx, c, w.probeGrace(c.StartupProbe), "failed startup probe, will be restarted")
		}
	case liveness:
		if a.Reached && !a.OK {
			w.kill(ctx, c, w.probeGrace(c.LivenessProbe), "failed liveness probe, will be restarted")
		}
	}
}

func (w *worker) probeGrace(p *corev1.Probe) time.Duration {
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	return w.grace(w.view.Pod)
}

func (w *worker) stopProbes(container string) {
	if p := w.probes[container]; p != nil {
		p.cancel()
		delete(w.probes, container)
	}
}

func (w *worker) stopAllProbes() {
	for name := range w.probes {
		w.stopProbes(name)
	}
}
