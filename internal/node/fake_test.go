package node

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/runtime"
	"weft/internal/store/kube"
)

// cluster is the API, the runtime and the network of one node under test.
type cluster struct {
	t  *testing.T
	mu sync.Mutex

	pods    map[string]*corev1.Pod // by name
	listed  bool
	changed chan struct{}

	boxes   map[string]*runtime.SandboxStatus
	exited  chan struct{}
	deaf    bool // containers ignore SIGTERM
	pid     int
	answer  func(cmd []string) int // of exec
	ready   error                  // of the network
	attach  error
	log     []string // what was done, in order
	events  []string
	patches int
	node    *corev1.Node
	status  *corev1.NodeStatus
}

func newCluster(t *testing.T) *cluster {
	return &cluster{
		t: t, pods: map[string]*corev1.Pod{}, listed: true, changed: make(chan struct{}, 1), boxes: map[string]*runtime.SandboxStatus{},
		exited: make(chan struct{}, 1), answer: func([]string) int { return 0 },
	}
}

func (c *cluster) did(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

func (c *cluster) do(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// run runs a node until the test ends or stop is called.
func (c *cluster) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			Name: "kube-node1", API: c, Pods: podList{c}, Events: c, Runtime: c, Network: c,
			Addresses:    func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("172.17.42.31")} },
			NetworkReady: func() error { c.mu.Lock(); defer c.mu.Unlock(); return c.ready },
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(stop)
	return stop
}

// podList is the node's pods; its Changed is not the runtime's.
type podList struct{ c *cluster }

func (p podList) Changed() <-chan struct{} { return p.c.changed }

func (p podList) Pods() ([]*corev1.Pod, bool) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return slices.Collect(maps.Values(p.c.pods)), p.c.listed
}

func (c *cluster) PatchPodStatus(_ context.Context, _, name string, uid types.UID, status *corev1.PodStatus) error {
	var err error
	c.do(func() {
		c.patches++
		p := c.pods[name]
		if p == nil || p.UID != uid {
			err = fmt.Errorf("pod %s: %w", name, kube.ErrNotFound)
			return
		}
		next := p.DeepCopy()
		next.Status = *status.DeepCopy()
		c.pods[name] = next
	})
	return err
}

func (c *cluster) DeletePod(_ context.Context, _, name string, _ types.UID) error {
	c.do(func() { c.did("delete object %s", name); delete(c.pods, name) })
	return nil
}

func (c *cluster) ConfigMap(context.Context, string, string) (*corev1.ConfigMap, error) {
	return nil, kube.ErrNotFound
}

func (c *cluster) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return nil, kube.ErrNotFound
}

func (c *cluster) RegisterNode(_ context.Context, want *corev1.Node) (*corev1.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.node == nil {
		c.did("register")
		c.node = want.DeepCopy()
		c.node.UID = types.UID(fmt.Sprint(len(c.log)))
	}
	return c.node, nil
}

func (c *cluster) PatchNodeStatus(_ context.Context, _ string, status *corev1.NodeStatus) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
	return nil
}

func (c *cluster) RenewLease(context.Context, string, time.Time) error { return nil }

func (c *cluster) Allowed(context.Context, string, []string, string, string, string) (bool, error) {
	return false, nil
}

func (c *cluster) Event(o corev1.ObjectReference, _, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, o.Name+" "+reason+": "+message)
}

func (c *cluster) CreateSandbox(_ context.Context, s runtime.Sandbox) (runtime.SandboxStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.boxes[s.UID]
	if box == nil || box.PID == 0 {
		c.did("create %s", s.Name)
		c.pid++
		next := &runtime.SandboxStatus{Sandbox: s, PID: c.pid, CreatedAt: time.Now()}
		if box != nil {
			next.Containers = box.Containers
		}
		c.boxes[s.UID], box = next, next
	}
	return *box, nil
}

func (c *cluster) RemoveSandbox(_ context.Context, uid string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did("remove %s", uid)
	delete(c.boxes, uid)
	return nil
}

func (c *cluster) List(context.Context) ([]runtime.SandboxStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []runtime.SandboxStatus
	for _, b := range c.boxes {
		box := *b
		box.Containers = slices.Clone(b.Containers)
		out = append(out, box)
	}
	return out, nil
}

func (c *cluster) Changed() <-chan struct{} { return c.exited }

func (c *cluster) StartContainer(_ context.Context, uid string, spec runtime.Container) (runtime.ContainerStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if spec.Image == "nope" {
		return runtime.ContainerStatus{}, fmt.Errorf("%w: nope", runtime.ErrImage)
	}
	c.did("start %s %d", spec.Name, spec.Attempt)
	st := runtime.ContainerStatus{
		Name: spec.Name, ID: fmt.Sprintf("%s-%s-%d", uid, spec.Name, spec.Attempt), State: runtime.Running, PID: 1, Attempt: spec.Attempt,
		StartedAt: time.Now(),
	}
	box := c.boxes[uid]
	box.Containers = append(slices.DeleteFunc(box.Containers, func(x runtime.ContainerStatus) bool { return x.Name == spec.Name }), st)
	return st, nil
}

// StopContainer ends a container at once, or after its grace when the cluster's containers are deaf.
func (c *cluster) StopContainer(ctx context.Context, uid, name string, grace time.Duration) error {
	c.mu.Lock()
	c.did("stop %s %s", name, grace.Round(time.Second))
	deaf := c.deaf
	c.mu.Unlock()
	code := 143
	if deaf {
		code = 137
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(grace):
		}
	}
	c.exit(uid, name, code)
	return nil
}

func (c *cluster) exit(uid, name string, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if box := c.boxes[uid]; box != nil {
		for i := range box.Containers {
			if x := &box.Containers[i]; x.Name == name && x.State == runtime.Running {
				x.State, x.PID, x.ExitCode, x.FinishedAt = runtime.Exited, 0, code, time.Now()
			}
		}
	}
	select {
	case c.exited <- struct{}{}:
	default:
	}
}

func (c *cluster) Exec(_ context.Context, _, _ string, cmd []string, _ runtime.Stream) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer(cmd), nil
}

func (c *cluster) Attach(_ context.Context, s runtime.SandboxStatus) ([]netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did("attach %s", s.Name)
	return []netip.Addr{netip.MustParseAddr("172.16.28.5")}, c.attach
}

func (c *cluster) Detach(_ context.Context, uid string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did("detach %s", uid)
	return nil
}

// until waits for a condition, looked at with the cluster's lock.
func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		c.mu.Lock()
		good := ok()
		state := fmt.Sprintf("log %q\nevents %q", c.log, c.events)
		c.mu.Unlock()
		if good {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not within 30 s: %s\n%s", what, state)
		}
	}
}

func (c *cluster) phase(name string, phase corev1.PodPhase) func() bool {
	return func() bool { return c.pods[name] != nil && c.pods[name].Status.Phase == phase }
}

func (c *cluster) event(text string) func() bool {
	return func() bool { return slices.Contains(c.events, text) }
}
