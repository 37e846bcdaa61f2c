package pod

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is the pod's status as people who use kubectl expect it. before is the status written last, for the times of conditions that
// did not change. idPrefix is the runtime's, as "weft-process://".
func Status(v *View, before *corev1.PodStatus, idPrefix string) *corev1.PodStatus {
	st := &corev1.PodStatus{
		ObservedGeneration: v.Pod.Generation, Phase: phase(v), StartTime: before.StartTime, QOSClass: v.Pod.Status.QOSClass,
		NominatedNodeName: v.Pod.Status.NominatedNodeName,
	}
	if st.StartTime == nil {
		now := metav1.NewTime(v.Now)
		st.StartTime = &now
	}
	addresses(v, st)
	for i := range v.Pod.Spec.InitContainers {
		st.InitContainerStatuses = append(st.InitContainerStatuses, containerStatus(v, &v.Pod.Spec.InitContainers[i], true, idPrefix))
	}
	for i := range v.Pod.Spec.Containers {
		st.ContainerStatuses = append(st.ContainerStatuses, containerStatus(v, &v.Pod.Spec.Containers[i], false, idPrefix))
	}
	st.Conditions = conditions(v, st)
	keepTimes(st.Conditions, before.Conditions, v.Now)
	return st
}

func addresses(v *View, st *corev1.PodStatus) {
	for _, a := range v.HostIPs {
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: a.String()})
	}
	if len(v.HostIPs) > 0 {
		st.HostIP = v.HostIPs[0].String()
	}
	ips := v.IPs
	if v.Pod.Spec.HostNetwork {
		ips = onePerFamily(v.HostIPs)
	}
	for _, a := range ips {
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(ips) > 0 {
		st.PodIP = ips[0].String()
	}
}

// onePerFamily keeps the first address of each family: a pod may tell no more.
func onePerFamily(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if len(out) == 0 || len(out) == 1 && out[0].Is6() != a.Is6() {
			out = append(out, a)
		}
	}
	return out
}

func containerStatus(v *View, c *corev1.Container, init bool, idPrefix string) corev1.ContainerStatus {
	r := v.record(c)
	st := corev1.ContainerStatus{Name: c.Name, Image: c.Image, RestartCount: int32(r.Restarts), State: containerState(v, c, r, init)}
	if r.Status != nil {
		st.ContainerID, st.ImageID = idPrefix+r.Status.ID, c.Image
	} else if r.Ended != nil {
		st.ContainerID = r.Ended.ContainerID
	}
	if r.Last != nil {
		st.LastTerminationState.Terminated = r.Last
	}
	if st.State.Waiting != nil && r.Ended != nil {
		st.LastTerminationState.Terminated = r.Ended
	}
	started := r.IsStarted(c)
	st.Started = &started
	st.Ready = r.IsReady(c)
	if init && !sidecar(c) {
		st.Ready = st.State.Terminated != nil && st.State.Terminated.ExitCode == 0
		started = r.Running()
	}
	return st
}

func containerState(v *View, c *corev1.Container, r *Record, init bool) corev1.ContainerState {
	wait := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	switch {
	case r.Running():
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(r.Status.StartedAt)}}
	case r.Waiting != nil && !v.Stopping:
		w := *r.Waiting
		return corev1.ContainerState{Waiting: &w}
	case r.Ended != nil && backsOff(v, c, r, init):
		return wait("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			backoff(r), c.Name, v.Pod.Name, v.Pod.Namespace, v.Pod.UID))
	case r.Ended != nil:
		return corev1.ContainerState{Terminated: r.Ended}
	}
	if ok, _ := initialized(v); !init && !ok {
		return wait("PodInitializing", "")
	}
	if init && len(v.Pod.Spec.InitContainers) > 0 && v.Pod.Spec.InitContainers[0].Name != c.Name && v.Attached {
		return wait("PodInitializing", "")
	}
	return wait("ContainerCreating", "")
}

// backsOff says whether a container that ended waits to be started again.
func backsOff(v *View, c *corev1.Container, r *Record, init bool) bool {
	if v.Stopping || Ended(v.Pod) || !v.Now.Before(r.NotBefore) {
		return false
	}
	if init && !sidecar(c) && r.Ended.ExitCode == 0 {
		return false
	}
	return restarts(v.Pod, c, r.Ended)
}

// backoff is the wait a container is in: from its end to the next start.
func backoff(r *Record) time.Duration {
	return r.NotBefore.Sub(r.Ended.FinishedAt.Time).Round(time.Second)
}

// conditions are the pod's, in the order kubectl describe shows them.
func conditions(v *View, st *corev1.PodStatus) []corev1.PodCondition {
	done := st.Phase == corev1.PodSucceeded
	sandbox := condition(corev1.PodReadyToStartContainers, v.Box != nil && v.Attached && !Ended(v.Pod), "", "")
	init := condition(corev1.PodInitialized, true, "", "")
	if ok, open := initialized(v); !ok && !done {
		init = condition(corev1.PodInitialized, false, "ContainersNotInitialized",
			"containers with incomplete status: ["+strings.Join(open, " ")+"]")
	} else if done {
		init.Reason = "PodCompleted"
	}
	containers := condition(corev1.ContainersReady, true, "", "")
	if unready := unready(v, st); st.Phase == corev1.PodFailed {
		containers = condition(corev1.ContainersReady, false, "PodFailed", "")
	} else if done {
		containers = condition(corev1.ContainersReady, false, "PodCompleted", "")
	} else if len(unready) > 0 {
		containers = condition(corev1.ContainersReady, false, "ContainersNotReady",
			"containers with unready status: ["+strings.Join(unready, " ")+"]")
	}
	ready := containers
	ready.Type = corev1.PodReady
	if closed := closedGates(v.Pod); ready.Status == corev1.ConditionTrue && len(closed) > 0 {
		ready = condition(corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(closed, ", "))
	}
	out := []corev1.PodCondition{sandbox, init, ready, containers, condition(corev1.PodScheduled, true, "", "")}
	for i := range out {
		out[i].ObservedGeneration = v.Pod.Generation
	}
	return out
}

func condition(t corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	if ok {
		c.Status = corev1.ConditionTrue
	}
	return c
}

// unready names the containers that are not ready: the sidecars count, the other init containers do not.
func unready(v *View, st *corev1.PodStatus) []string {
	var out []string
	for i, s := range st.InitContainerStatuses {
		if sidecar(&v.Pod.Spec.InitContainers[i]) && !s.Ready {
			out = append(out, s.Name)
		}
	}
	for _, s := range st.ContainerStatuses {
		if !s.Ready {
			out = append(out, s.Name)
		}
	}
	return out
}

// closedGates says which readiness gates do not let the pod be ready.
func closedGates(p *corev1.Pod) []string {
	var out []string
	for _, g := range p.Spec.ReadinessGates {
		open := false
		for _, c := range p.Status.Conditions {
			if c.Type == g.ConditionType {
				open = c.Status == corev1.ConditionTrue
			}
		}
		if !open {
			out = append(out, fmt.Sprintf("the status of pod readiness gate %q is not \"True\"", g.ConditionType))
		}
	}
	return out
}

// keepTimes gives conditions that did not change the time of their last change.
func keepTimes(now, before []corev1.PodCondition, at time.Time) {
	for i := range now {
		now[i].LastTransitionTime = metav1.NewTime(at)
		for _, b := range before {
			if b.Type == now[i].Type && b.Status == now[i].Status {
				now[i].LastTransitionTime = b.LastTransitionTime
			}
		}
	}
}
