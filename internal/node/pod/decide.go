package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Plan is what is to be done for a pod now.
type Plan struct {
	Start   []*corev1.Container // to be started, in order
	Waiting []*corev1.Container // to be started again when their back-off is over
	Stop    []*corev1.Container // to be stopped: the pod has ended but for these sidecars
	Phase   corev1.PodPhase
	Ended   bool      // nothing of the pod will run again
	Next    time.Time // decide again then, zero when only an event can change something
}

// Ended says whether the API has the pod as ended: nothing of it may run again.
func Ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Decide plans the next steps of a pod that is not being deleted.
func Decide(v *View) Plan {
	var plan Plan
	plan.Phase = phase(v)
	if plan.Phase == corev1.PodSucceeded || plan.Phase == corev1.PodFailed {
		plan.Ended = true
		for i := range v.Pod.Spec.InitContainers {
			if c := &v.Pod.Spec.InitContainers[i]; v.record(c).Running() {
				plan.Stop = append(plan.Stop, c)
			}
		}
		return plan
	}
	if !planInit(v, &plan) {
		return plan
	}
	for i := range v.Pod.Spec.Containers {
		c := &v.Pod.Spec.Containers[i]
		r := v.record(c)
		if !r.Running() && (r.Ended == nil || restarts(v.Pod, c, r.Ended)) {
			plan.want(v, c, r)
		}
	}
	return plan
}

// planInit plans the init containers and says whether the others may start.
func planInit(v *View, plan *Plan) bool {
	done := begun(v)
	for i := range v.Pod.Spec.InitContainers {
		c := &v.Pod.Spec.InitContainers[i]
		r := v.record(c)
		switch {
		case sidecar(c):
			if !r.Running() {
				plan.want(v, c, r)
			}
			if !done && !r.IsStarted(c) {
				return false
			}
		case done || v.succeeded(r):
		case r.Running():
			return false
		default:
			plan.want(v, c, r)
			return false
		}
	}
	return true
}

// want plans a start, now or when the back-off is over.
func (p *Plan) want(v *View, c *corev1.Container, r *Record) {
	if !v.Now.Before(r.NotBefore) {
		p.Start = append(p.Start, c)
		return
	}
	p.Waiting = append(p.Waiting, c)
	if p.Next.IsZero() || r.NotBefore.Before(p.Next) {
		p.Next = r.NotBefore
	}
}

func (v *View) record(c *corev1.Container) *Record {
	r := v.Records[c.Name]
	if r == nil {
		r = &Record{}
		v.Records[c.Name] = r
	}
	return r
}

// here says whether the container's latest run is of this sandbox: what a sandbox before left does not count as initialization.
func (v *View) here(r *Record) bool {
	return r.Status != nil && v.Box != nil && !r.Status.StartedAt.Before(v.Box.CreatedAt)
}

// succeeded says whether an init container is through.
func (v *View) succeeded(r *Record) bool { return v.here(r) && r.Ended != nil && r.Ended.ExitCode == 0 }

// begun says whether a container proper was started in this sandbox: then the init containers are through.
func begun(v *View) bool {
	for i := range v.Pod.Spec.Containers {
		if v.here(v.record(&v.Pod.Spec.Containers[i])) {
			return true
		}
	}
	return false
}

// initialized says whether all init containers are through, and names those that are not.
func initialized(v *View) (bool, []string) {
	if begun(v) {
		return true, nil
	}
	var open []string
	for i := range v.Pod.Spec.InitContainers {
		c := &v.Pod.Spec.InitContainers[i]
		r := v.record(c)
		ok := v.succeeded(r)
		if sidecar(c) {
			ok = r.IsStarted(c)
		}
		if !ok {
			open = append(open, c.Name)
		}
	}
	return len(open) == 0, open
}

// sidecar says whether an init container runs as long as the pod (KEP-753).
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// restarts says whether a container that ended is started again.
func restarts(p *corev1.Pod, c *corev1.Container, ended *corev1.ContainerStateTerminated) bool {
	policy := p.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return ended.ExitCode != 0
	case corev1.RestartPolicyAlways:
	}
	return true
}

// phase is the pod's phase as its containers make it (pod lifecycle, "Pod phase").
func phase(v *View) corev1.PodPhase {
	if Ended(v.Pod) {
		return v.Pod.Status.Phase
	}
	if p, decided := initPhase(v); decided {
		return p
	}
	var fresh, running, failed, again int
	for i := range v.Pod.Spec.Containers {
		c := &v.Pod.Spec.Containers[i]
		r := v.record(c)
		switch {
		case r.Running():
			running++
		case r.Ended == nil:
			fresh++
		case !v.Stopping && restarts(v.Pod, c, r.Ended):
			again++
		case r.Ended.ExitCode != 0:
			failed++
		}
	}
	switch {
	case fresh > 0 && !v.Stopping:
		return corev1.PodPending
	case running > 0 || again > 0:
		return corev1.PodRunning
	case failed > 0 || fresh > 0:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

// initPhase is decided while the init containers are not through.
func initPhase(v *View) (corev1.PodPhase, bool) {
	if begun(v) || v.Stopping {
		return "", false
	}
	for i := range v.Pod.Spec.InitContainers {
		c := &v.Pod.Spec.InitContainers[i]
		r := v.record(c)
		if sidecar(c) || r.Running() || r.Ended == nil || r.Ended.ExitCode == 0 {
			continue
		}
		if !restarts(v.Pod, c, r.Ended) {
			return corev1.PodFailed, true
		}
	}
	if ended(v) { // a pod of an earlier life of the host: its containers count, not what is left of the init containers
		return "", false
	}
	if ok, _ := initialized(v); !ok {
		return corev1.PodPending, true
	}
	return "", false
}

// ended says whether every container proper has ended and none is started again.
func ended(v *View) bool {
	for i := range v.Pod.Spec.Containers {
		c := &v.Pod.Spec.Containers[i]
		if r := v.record(c); r.Ended == nil || restarts(v.Pod, c, r.Ended) {
			return false
		}
	}
	return true
}
