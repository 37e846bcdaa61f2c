package node

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/runtime"
)

// newPod is a pod of one container named c.
func newPod(name, image string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "default", name, types.UID("uid-"+name)
	p.Spec.NodeName, p.Spec.RestartPolicy = "kube-node1", corev1.RestartPolicyAlways
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: image}}
	return p
}

func (c *cluster) add(p *corev1.Pod) { c.do(func() { c.pods[p.Name] = p }) }

// remove marks a pod as deleted, as kubectl delete does.
func (c *cluster) remove(name string, grace int64) {
	c.do(func() {
		p := c.pods[name].DeepCopy()
		now := metav1.Now()
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
		c.pods[name] = p
	})
}

func (c *cluster) wantLog(want string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []string
	for _, l := range c.log {
		if l != "register" {
			got = append(got, l)
		}
	}
	if text := strings.Join(got, ", "); text != want {
		c.t.Errorf("did %s\nwant %s", text, want)
	}
}

func TestPodLife(t *testing.T) {
	c := newCluster(t)
	c.add(newPod("a", "nginx"))
	c.run()
	c.until("running", c.phase("a", corev1.PodRunning))
	c.mu.Lock()
	st := c.pods["a"].Status
	c.mu.Unlock()
	if st.PodIP != "172.16.28.5" || st.HostIP != "172.17.42.31" || !st.ContainerStatuses[0].Ready || st.StartTime == nil {
		t.Errorf("status %+v", st)
	}
	c.remove("a", 30)
	c.until("object gone", func() bool { return len(c.pods) == 0 })
	c.wantLog("create a, attach a, start c 0, stop c 30s, detach uid-a, remove uid-a, delete object a")
	for _, e := range []string{
		`a Pulled: Container image "nginx" already present on machine`, "a Created: Created container: c", "a Started: Started container c",
		"a Killing: Stopping container c",
	} {
		c.until(e, c.event(e))
	}
}

func TestRestart(t *testing.T) {
	c := newCluster(t)
	c.add(newPod("a", "nginx"))
	c.run()
	c.until("running", c.phase("a", corev1.PodRunning))
	c.exit("uid-a", "c", 1)
	c.until("second start", func() bool { return slices.Contains(c.log, "start c 1") })
	c.exit("uid-a", "c", 1)
	c.until("back-off", func() bool {
		w := c.pods["a"].Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})
	c.until("event", c.event("a BackOff: Back-off restarting failed container c in pod a_default(uid-a)"))
	c.wantLog("create a, attach a, start c 0, start c 1")
}

func TestUnknownImage(t *testing.T) {
	c := newCluster(t)
	c.add(newPod("a", "nope"))
	c.run()
	c.until("image back-off", func() bool {
		st := c.pods["a"].Status
		return len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].State.Waiting != nil &&
			st.ContainerStatuses[0].State.Waiting.Reason == "ImagePullBackOff"
	})
	for _, e := range []string{`a Failed: Failed to pull image "nope": image not found: nope`, "a Failed: Error: ErrImagePull", `a BackOff: Back-off pulling image "nope"`} {
		c.until(e, c.event(e))
	}
}

// TestAgentRestart: a new agent finds everything as it should be and does nothing.
func TestAgentRestart(t *testing.T) {
	c := newCluster(t)
	c.add(newPod("a", "nginx"))
	p := newPod("b", "nginx")
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	c.add(p)
	stop := c.run()
	ready := func(name string) func() bool {
		return func() bool {
			st := c.pods[name].Status.ContainerStatuses
			return len(st) == 1 && st[0].Ready
		}
	}
	c.until("a ready", ready("a"))
	c.until("b ready", ready("b"))
	stop()
	c.mu.Lock()
	if len(c.boxes) != 2 {
		t.Error("pods did not outlive the agent")
	}
	c.log, c.patches = nil, 0
	c.mu.Unlock()
	c.run()
	c.until("attached again", func() bool { return len(c.log) >= 2 })
	time.Sleep(100 * time.Millisecond)
	c.mu.Lock()
	slices.Sort(c.log)
	patches := c.patches
	c.mu.Unlock()
	c.wantLog("attach a, attach b") // idempotent, and how the agent learns the addresses
	if patches != 0 {
		t.Errorf("%d status writes after a restart that changed nothing", patches)
	}
}

// TestOrphans: a sandbox whose pod is gone goes, but only when the pods are really known.
func TestOrphans(t *testing.T) {
	c := newCluster(t)
	c.listed = false
	c.boxes["uid-old"] = &runtime.SandboxStatus{
		Sandbox: runtime.Sandbox{UID: "uid-old", Name: "old"}, PID: 5, CreatedAt: time.Now(),
		Containers: []runtime.ContainerStatus{{Name: "c", ID: "1", State: runtime.Running, StartedAt: time.Now()}},
	}
	c.run()
	time.Sleep(50 * time.Millisecond)
	c.wantLog("")
	c.do(func() { c.listed = true })
	c.until("sandbox gone", func() bool { return len(c.boxes) == 0 })
	c.wantLog("stop c 1s, detach uid-old, remove uid-old")
}

// TestForceDelete: a deaf pod with a long grace is ended at once when its object is gone.
func TestForceDelete(t *testing.T) {
	c := newCluster(t)
	c.deaf = true
	c.add(newPod("a", "nginx"))
	c.run()
	c.until("running", c.phase("a", corev1.PodRunning))
	c.remove("a", 600)
	c.until("stopping", func() bool { return slices.Contains(c.log, "stop c 10m0s") })
	began := time.Now()
	c.do(func() { delete(c.pods, "a") })
	c.until("sandbox gone", func() bool { return len(c.boxes) == 0 })
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestLivenessRestarts(t *testing.T) {
	c := newCluster(t)
	sick := false
	c.answer = func([]string) int {
		if sick { // one failure is enough
			sick = false
			return 1
		}
		return 0
	}
	p := newPod("a", "nginx")
	grace := int64(3)
	p.Spec.Containers[0].LivenessProbe = &corev1.Probe{
		PeriodSeconds: 1, FailureThreshold: 1, TerminationGracePeriodSeconds: &grace,
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"check"}}},
	}
	c.add(p)
	c.run()
	c.until("running", c.phase("a", corev1.PodRunning))
	c.do(func() { sick = true })
	c.until("restart", func() bool { return slices.Contains(c.log, "start c 1") })
	c.wantLog("create a, attach a, start c 0, stop c 3s, start c 1")
	c.until("events", c.event("a Killing: Container c failed liveness probe, will be restarted"))
}

// TestCompleted: a pod that ended keeps its sandbox, for the logs, but not its address; nothing of it is started by a new agent.
func TestCompleted(t *testing.T) {
	c := newCluster(t)
	p := newPod("a", "nginx")
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	c.add(p)
	stop := c.run()
	c.until("running", c.phase("a", corev1.PodRunning))
	c.exit("uid-a", "c", 0)
	c.until("succeeded", c.phase("a", corev1.PodSucceeded))
	c.until("detached", func() bool { return slices.Contains(c.log, "detach uid-a") })
	stop()
	c.run()
	time.Sleep(50 * time.Millisecond)
	c.wantLog("create a, attach a, start c 0, detach uid-a, detach uid-a")
}

func TestNetworkNotReady(t *testing.T) {
	c := newCluster(t)
	c.ready = errors.New("no subnet yet")
	c.add(newPod("a", "nginx"))
	host := newPod("h", "nginx")
	host.Spec.HostNetwork = true
	c.add(host)
	c.run()
	c.until("host-network pod", c.phase("h", corev1.PodRunning))
	c.until("event", c.event("a NetworkNotReady: network is not ready: no subnet yet"))
	c.until("node not ready", func() bool { return c.status != nil && condition(c.status, corev1.NodeReady) == "False" })
	c.wantLog("create h, start c 0")
	c.do(func() { c.ready = nil })
	c.until("running", c.phase("a", corev1.PodRunning))
	c.until("node ready", func() bool {
		return condition(c.status, corev1.NodeReady) == "True" && condition(c.status, corev1.NodeNetworkUnavailable) == "False"
	})
}

func condition(st *corev1.NodeStatus, t corev1.NodeConditionType) string {
	for _, c := range st.Conditions {
		if c.Type == t {
			return string(c.Status)
		}
	}
	return ""
}

// TestDeadSandbox: the pod's init died; the pod is made again.
func TestDeadSandbox(t *testing.T) {
	c := newCluster(t)
	c.add(newPod("a", "nginx"))
	c.run()
	c.until("running", c.phase("a", corev1.PodRunning))
	c.do(func() { c.boxes["uid-a"].PID = 0 })
	c.exit("uid-a", "c", 137)
	c.until("made again", func() bool { return slices.Contains(c.log, "start c 1") })
	c.wantLog("create a, attach a, start c 0, create a, attach a, start c 1")
	c.until("event", c.event("a SandboxChanged: Pod sandbox changed, it will be killed and re-created."))
}

func TestConfigErrors(t *testing.T) {
	c := newCluster(t)
	for want, config := range map[string]Config{
		"--node-name":  {},
		"are required": {Name: "a"},
	} {
		if err := Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	full := Config{
		Name: "a", API: c, Pods: podList{c}, Events: c, Runtime: c, Network: c, Addresses: func() []netip.Addr { return nil },
		Listen: netip.MustParseAddrPort("127.0.0.1:1"),
	}
	for _, want := range []string{"--state-dir", "certificate-authority-data", "holds no certificate"} {
		if err := Run(t.Context(), full); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if full.StateDir != "" {
			full.ClientCA = []byte("junk")
		}
		full.StateDir = t.TempDir()
	}
}
