// Package pod decides what is to be done for a pod and what its status says: functions of the pod's object, of what the runtime
// tells, and of what the node remembers. It does nothing itself and has no clock.
//
// Floor 4, programs (part of node).
package pod

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/runtime"
)

// Back-off of a container that ends again and again: the first restart is at once, then these, doubling.
const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
	backoffReset = 10 * time.Minute // a container that ran this long starts over
)

// View is all a decision rests on.
type View struct {
	Pod      *corev1.Pod
	Box      *runtime.SandboxStatus // nil: there is none
	Attached bool                   // the sandbox has its addresses
	IPs      []netip.Addr           // of the pod
	HostIPs  []netip.Addr
	Records  map[string]*Record // by container name, init containers too
	Stopping bool               // the pod is being ended
	Now      time.Time
}

// Record is what the node remembers of one container.
type Record struct {
	Status   *runtime.ContainerStatus         // the latest run as the runtime last told it, nil when there is none in this sandbox
	Ended    *corev1.ContainerStateTerminated // how the latest run ended, nil while it runs
	Last     *corev1.ContainerStateTerminated // how the run before ended
	Begun    bool                             // ever started
	Restarts int                              // attempt of the latest run

	Waiting   *corev1.ContainerStateWaiting // why the last try to start it failed
	Delay     time.Duration                 // back-off after the next end or failed try
	NotBefore time.Time                     // no start before this

	Started bool // the startup probe has succeeded
	Ready   bool // the readiness probe says so
}

// Running says whether the latest run still runs.
func (r *Record) Running() bool { return r.Status != nil && r.Status.State == runtime.Running }

// Attempt is the number of the next start.
func (r *Record) Attempt() int {
	if r.Begun {
		return r.Restarts + 1
	}
	return 0
}

// NewRecords returns what the API's status says of the pod's containers: all that is left of them after the host or the agent
// was restarted.
func NewRecords(p *corev1.Pod) map[string]*Record {
	records := map[string]*Record{}
	for _, c := range All(p) {
		records[c.Name] = &Record{}
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, st := range list {
			if r := records[st.Name]; r != nil {
				seed(r, st)
			}
		}
	}
	return records
}

func seed(r *Record, st corev1.ContainerStatus) {
	r.Restarts = int(st.RestartCount)
	r.Last = st.LastTerminationState.Terminated
	switch {
	case st.State.Terminated != nil:
		r.Begun, r.Ended = true, st.State.Terminated
	case st.State.Running != nil:
		r.Begun, r.Ended = true, lost(st.ContainerID, st.State.Running.StartedAt)
		r.Ready, r.Started = st.Ready, st.Started != nil && *st.Started
	case st.State.Waiting != nil && r.Last != nil: // in back-off: the last end is the latest run's
		r.Begun, r.Ended = true, r.Last
	}
	if r.Restarts > 0 {
		r.Delay = backoffFirst
	}
}

// lost is the end of a run that nobody saw ending.
func lost(id string, started metav1.Time) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		ExitCode: 137, Reason: "ContainerStatusUnknown", ContainerID: id, StartedAt: started,
		Message: "The container could not be located when the pod was looked at; it may have ended with its host",
	}
}

// Observe brings a record up to date with what the runtime tells of the container, nil when it knows none. It returns whether a run
// was seen to end.
func (r *Record) Observe(st *runtime.ContainerStatus, idPrefix string) (ended bool) {
	if st == nil {
		if r.Running() {
			r.Ended = lost(idPrefix+r.Status.ID, metav1.NewTime(r.Status.StartedAt))
			ended = true
		}
		r.Status = nil
		return ended
	}
	if r.Status == nil || r.Status.ID != st.ID {
		r.adopt(st, idPrefix)
	}
	now := *st
	r.Status = &now
	if st.State != runtime.Exited || r.Ended != nil {
		return false
	}
	r.Ended = terminated(st, idPrefix)
	r.Ready, r.Started = false, false
	if st.FinishedAt.Sub(st.StartedAt) >= backoffReset {
		r.Delay = 0
	}
	r.NotBefore = st.FinishedAt.Add(r.Delay)
	r.Delay = nextDelay(r.Delay)
	return true
}

// adopt takes a run that the record did not know: one just started, or one of the agent before, which the API may have told of.
func (r *Record) adopt(st *runtime.ContainerStatus, idPrefix string) {
	told := r.Status == nil && r.Begun && (r.Restarts == st.Attempt || r.Ended != nil && r.Ended.ContainerID == idPrefix+st.ID)
	if !told {
		if r.Ended != nil {
			r.Last = r.Ended
		}
		r.Ready, r.Started = false, false
	}
	if !r.Begun && st.Attempt > 0 && r.Delay == 0 {
		r.Delay = backoffFirst
	}
	r.Begun, r.Restarts, r.Ended, r.Waiting = true, st.Attempt, nil, nil
}

// IsStarted says whether the container runs and its startup probe, if any, has succeeded.
func (r *Record) IsStarted(c *corev1.Container) bool {
	return r.Running() && (c.StartupProbe == nil || r.Started)
}

// IsReady says whether the container is started and its readiness probe, if any, succeeds.
func (r *Record) IsReady(c *corev1.Container) bool {
	return r.IsStarted(c) && (c.ReadinessProbe == nil || r.Ready)
}

// Fail remembers that a start failed and when the next may be tried.
func (r *Record) Fail(reason, message string, now time.Time) {
	r.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	r.Delay = nextDelay(r.Delay)
	r.NotBefore = now.Add(r.Delay)
}

func nextDelay(d time.Duration) time.Duration {
	if d == 0 {
		return backoffFirst
	}
	return min(2*d, backoffMax)
}

func terminated(st *runtime.ContainerStatus, idPrefix string) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(st.ExitCode), Reason: "Completed", ContainerID: idPrefix + st.ID,
		StartedAt: metav1.NewTime(st.StartedAt), FinishedAt: metav1.NewTime(st.FinishedAt),
	}
	if st.ExitCode != 0 {
		t.Reason = "Error"
	}
	return t
}

// All returns the pod's init containers and containers, in the order they start.
func All(p *corev1.Pod) []*corev1.Container {
	out := make([]*corev1.Container, 0, len(p.Spec.InitContainers)+len(p.Spec.Containers))
	for i := range p.Spec.InitContainers {
		out = append(out, &p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		out = append(out, &p.Spec.Containers[i])
	}
	return out
}

// Latest returns the newest run of a container in the sandbox, nil when there is none.
func Latest(box *runtime.SandboxStatus, name string) *runtime.ContainerStatus {
	var out *runtime.ContainerStatus
	if box == nil {
		return nil
	}
	for i := range box.Containers {
		c := &box.Containers[i]
		if c.Name == name && (out == nil || c.Attempt > out.Attempt) {
			out = c
		}
	}
	return out
}
