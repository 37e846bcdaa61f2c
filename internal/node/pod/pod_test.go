package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/runtime"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const prefix = "test://"

// world is a pod's life under test: the runtime is what the test says.
type world struct {
	*testing.T
	v View
}

func newWorld(t *testing.T, policy corev1.RestartPolicy, init []corev1.Container, names ...string) *world {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID, p.Generation = "ns", "pod", "uid", 1
	p.Spec.RestartPolicy = policy
	p.Spec.InitContainers = init
	for _, n := range names {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: "nginx"})
	}
	w := &world{T: t, v: View{Pod: p, Records: NewRecords(p), Now: t0}}
	w.v.Box = &runtime.SandboxStatus{PID: 7, CreatedAt: t0}
	w.v.Attached, w.v.IPs = true, []netip.Addr{netip.MustParseAddr("172.16.28.5")}
	w.v.HostIPs = []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("172.17.42.99"), netip.MustParseAddr("fd00::1")}
	return w
}

func (w *world) after(d time.Duration) { w.v.Now = w.v.Now.Add(d) }

// run starts what the plan says and returns the names.
func (w *world) run() string {
	w.Helper()
	var names []string
	plan := Decide(&w.v)
	for _, c := range plan.Start {
		r := w.v.Records[c.Name]
		st := runtime.ContainerStatus{
			Name: c.Name, ID: fmt.Sprintf("%s-%d", c.Name, r.Attempt()), State: runtime.Running, PID: 9,
			StartedAt: w.v.Now, Attempt: r.Attempt(),
		}
		w.v.Box.Containers = slices.DeleteFunc(w.v.Box.Containers, func(x runtime.ContainerStatus) bool { return x.Name == c.Name })
		w.v.Box.Containers = append(w.v.Box.Containers, st)
		names = append(names, c.Name)
	}
	w.look()
	return strings.Join(names, " ")
}

func (w *world) look() {
	for _, c := range All(w.v.Pod) {
		w.v.Records[c.Name].Observe(Latest(w.v.Box, c.Name), prefix)
	}
}

func (w *world) exit(name string, code int) {
	w.Helper()
	for i := range w.v.Box.Containers {
		if c := &w.v.Box.Containers[i]; c.Name == name {
			c.State, c.PID, c.ExitCode, c.FinishedAt = runtime.Exited, 0, code, w.v.Now
			w.look()
			return
		}
	}
	w.Fatalf("no container %s to exit", name)
}

func (w *world) status() *corev1.PodStatus { return Status(&w.v, &corev1.PodStatus{}, prefix) }

// line is the status in short: phase, and for each container its state.
func (w *world) line() string {
	st := w.status()
	out := []string{string(st.Phase)}
	for _, c := range append(st.InitContainerStatuses, st.ContainerStatuses...) {
		text := c.Name + "="
		switch {
		case c.State.Running != nil:
			text += "running"
		case c.State.Terminated != nil:
			text += fmt.Sprintf("%s/%d", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		case c.State.Waiting != nil:
			text += c.State.Waiting.Reason
		}
		out = append(out, fmt.Sprintf("%s,%d", text, c.RestartCount))
	}
	return strings.Join(out, " ")
}

func (w *world) want(line string) {
	w.Helper()
	if got := w.line(); got != line {
		w.Errorf("at +%s: status %q, want %q", w.v.Now.Sub(t0), got, line)
	}
}

func (w *world) wantRun(names string) {
	w.Helper()
	if got := w.run(); got != names {
		w.Errorf("at +%s: started %q, want %q", w.v.Now.Sub(t0), got, names)
	}
}

func TestCrashLoop(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyAlways, nil, "a")
	w.want("Pending a=ContainerCreating,0")
	w.wantRun("a")
	w.want("Running a=running,0")
	w.exit("a", 1)
	w.wantRun("a") // the first restart is at once
	w.want("Running a=running,1")
	wait := 10 * time.Second
	for n := 1; n < 9; n++ {
		w.exit("a", 1)
		w.after(wait - time.Second)
		w.wantRun("")
		w.want(fmt.Sprintf("Running a=CrashLoopBackOff,%d", n))
		if got, want := w.status().ContainerStatuses[0].State.Waiting.Message, fmt.Sprintf("back-off %s restarting failed container=a pod=pod_ns(uid)", wait); got != want {
			t.Errorf("message %q, want %q", got, want)
		}
		if last := w.status().ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 1 {
			t.Errorf("lastState %v, want exit code 1", last)
		}
		if next := Decide(&w.v).Next; !next.Equal(w.v.Now.Add(time.Second)) {
			t.Errorf("next look at %s, want in 1s", next)
		}
		w.after(time.Second)
		w.wantRun("a")
		wait = min(2*wait, 5*time.Minute)
	}
	w.after(10 * time.Minute) // long enough to start over
	w.exit("a", 1)
	w.wantRun("a")
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy   corev1.RestartPolicy
		a, b     int
		restarts string
		status   string
	}{
		{corev1.RestartPolicyNever, 0, 0, "", "Succeeded a=Completed/0,0 b=Completed/0,0"},
		{corev1.RestartPolicyNever, 0, 3, "", "Failed a=Completed/0,0 b=Error/3,0"},
		{corev1.RestartPolicyOnFailure, 0, 0, "", "Succeeded a=Completed/0,0 b=Completed/0,0"},
		{corev1.RestartPolicyOnFailure, 0, 3, "b", "Running a=Completed/0,0 b=running,1"},
		{corev1.RestartPolicyAlways, 0, 3, "a b", "Running a=running,1 b=running,1"},
	} {
		t.Run(fmt.Sprintf("%s %d %d", c.policy, c.a, c.b), func(t *testing.T) {
			w := newWorld(t, c.policy, nil, "a", "b")
			w.wantRun("a b")
			w.exit("a", c.a)
			w.exit("b", c.b)
			if ended := Decide(&w.v).Ended; ended != (c.restarts == "") {
				t.Errorf("ended = %v", ended)
			}
			w.wantRun(c.restarts)
			w.want(c.status)
		})
	}
}

func TestInitContainers(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	w := newWorld(t, corev1.RestartPolicyAlways, []corev1.Container{{Name: "i"}, {Name: "s", RestartPolicy: &always}}, "a")
	w.want("Pending i=ContainerCreating,0 s=PodInitializing,0 a=PodInitializing,0")
	w.wantRun("i")
	w.wantRun("")
	w.want("Pending i=running,0 s=PodInitializing,0 a=PodInitializing,0")
	w.exit("i", 2)
	w.wantRun("i")
	w.exit("i", 0)
	w.wantRun("s")
	w.wantRun("a")
	w.want("Running i=Completed/0,1 s=running,0 a=running,0")
	w.exit("s", 0) // a sidecar comes back whatever its code
	w.wantRun("s")

	// A new sandbox runs everything again, whatever the old one left.
	w.after(time.Hour)
	w.exit("s", 137)
	w.exit("a", 137)
	w.v.Box.CreatedAt = w.v.Now
	w.wantRun("i")
	w.want("Pending i=running,2 s=Error/137,1 a=Error/137,0")
	w.exit("i", 0)
	w.wantRun("s")
	w.wantRun("a")
	w.want("Running i=Completed/0,2 s=running,2 a=running,1")
}

func TestInitFailureIsFinal(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyNever, []corev1.Container{{Name: "i"}}, "a")
	w.run()
	w.exit("i", 1)
	w.wantRun("")
	w.want("Failed i=Error/1,0 a=PodInitializing,0")
	if !Decide(&w.v).Ended {
		t.Error("pod has not ended")
	}
}

// TestAdopt: after a restart of the agent nothing is started again, and the status is the same.
func TestAdopt(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyAlways, []corev1.Container{{Name: "i"}}, "a", "b")
	w.run()
	w.exit("i", 0)
	w.run()
	w.exit("b", 1)
	w.run()
	before := w.status()
	w.v.Pod.Status = *before
	w.v.Records = NewRecords(w.v.Pod)
	w.look()
	w.wantRun("")
	after := Status(&w.v, before, prefix)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("status after adoption\n%v\nwant\n%v", after, before)
	}
	w.exit("b", 1)
	w.wantRun("") // the back-off is not forgotten either
	w.want("Running i=Completed/0,0 a=running,0 b=CrashLoopBackOff,1")
}

// TestLost: what ran when the host went down and may not run again has failed.
func TestLost(t *testing.T) {
	for policy, want := range map[corev1.RestartPolicy]string{
		corev1.RestartPolicyNever:  "Failed a=Completed/0,0 b=ContainerStatusUnknown/137,0",
		corev1.RestartPolicyAlways: "Running a=running,1 b=running,1",
	} {
		w := newWorld(t, policy, nil, "a", "b")
		w.run()
		w.exit("a", 0)
		w.v.Pod.Status = *w.status()
		w.v.Records = NewRecords(w.v.Pod)
		w.v.Box = &runtime.SandboxStatus{PID: 8, CreatedAt: t0.Add(time.Hour)}
		w.after(time.Hour)
		w.look()
		w.run()
		w.want(want)
	}
}

func TestReadiness(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyAlways, nil, "a")
	w.v.Pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	w.v.Pod.Spec.Containers[0].StartupProbe = &corev1.Probe{}
	w.v.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	ready := func() string {
		st := w.status()
		for _, c := range st.Conditions {
			if c.Type == corev1.PodReady {
				return fmt.Sprintf("%v %v %s %s", *st.ContainerStatuses[0].Started, st.ContainerStatuses[0].Ready, c.Status, c.Reason)
			}
		}
		return "none"
	}
	steps := []struct {
		do   func()
		want string
	}{
		{func() { w.run() }, "false false False ContainersNotReady"},
		{func() { w.v.Records["a"].Ready = true }, "false false False ContainersNotReady"},
		{func() { w.v.Records["a"].Started = true }, "true true False ReadinessGatesNotReady"},
		{func() {
			w.v.Pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}}
		}, "true true True "},
		{func() { w.v.Records["a"].Ready = false }, "true false False ContainersNotReady"},
		{func() { w.v.Records["a"].Ready = true; w.exit("a", 1) }, "false false False ContainersNotReady"},
	}
	for i, s := range steps {
		s.do()
		if got := ready(); got != s.want {
			t.Errorf("step %d: %q, want %q", i, got, s.want)
		}
	}
}

func TestStatusTimesAndAddresses(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyAlways, nil, "a")
	first := w.status()
	w.after(time.Minute)
	w.run()
	second := Status(&w.v, first, prefix)
	if !second.StartTime.Equal(first.StartTime) {
		t.Errorf("start time moved to %s", second.StartTime)
	}
	for _, c := range second.Conditions {
		moved := !c.LastTransitionTime.Time.Equal(t0)
		if want := c.Type == corev1.PodReady || c.Type == corev1.ContainersReady; moved != want {
			t.Errorf("condition %s moved = %v, want %v", c.Type, moved, want)
		}
	}
	if second.PodIP != "172.16.28.5" || second.HostIP != "172.17.42.31" {
		t.Errorf("addresses %s %s", second.PodIP, second.HostIP)
	}
	w.v.Pod.Spec.HostNetwork = true
	if ips := w.status().PodIPs; len(ips) != 2 || ips[0].IP != "172.17.42.31" || ips[1].IP != "fd00::1" {
		t.Errorf("addresses on the host's network: %v", ips)
	}
}

func TestFailedStart(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyAlways, nil, "a")
	w.v.Records["a"].Fail("ErrImagePull", "no such image", w.v.Now)
	w.want("Pending a=ErrImagePull,0")
	w.wantRun("")
	w.after(10 * time.Second)
	w.wantRun("a")
	w.want("Running a=running,0")
}

func TestStopping(t *testing.T) {
	w := newWorld(t, corev1.RestartPolicyAlways, nil, "a", "b")
	w.run()
	w.v.Stopping = true
	w.exit("a", 0)
	w.want("Running a=Completed/0,0 b=running,0")
	w.exit("b", 143)
	w.want("Failed a=Completed/0,0 b=Error/143,0")
}
