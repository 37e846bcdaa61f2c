package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/test/labtest"
)

// Hosts of the topologies used here.
const (
	master = "kube-master"
	node1  = "kube-node1"
	node2  = "kube-node2"
)

// Proxy modes.
const (
	userspace = "userspace"
	nftables  = "nftables"
)

var nodes = []string{node1, node2}

// labName makes the name of a lab of this test process: several may run at the same time.
func labName(suffix string) string { return fmt.Sprintf("e2e-%d-%s", os.Getpid(), suffix) }

// cluster is a lab with programs, and what a test asks of it. Its methods end the test when what they need fails.
type cluster struct {
	*lab.Lab
	up time.Duration // from nothing to ready
}

// start brings up a cluster of the walkthrough's hosts for this test alone.
func start(t *testing.T, suffix string, top topology.Topology) *cluster {
	t.Helper()
	c, err := bringUp(t.Context(), suffix, top)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.logs(t)
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func bringUp(ctx context.Context, suffix string, top topology.Topology) (*cluster, error) {
	began := time.Now()
	l, err := lab.Up(ctx, top, lab.Options{Name: labName(suffix), Attached: true, Bin: bin, Self: bin + "/weft", Timeout: 2 * time.Minute})
	if err != nil {
		return nil, err
	}
	return &cluster{Lab: l, up: time.Since(began)}, nil
}

// modeTopology is the default topology with a proxy mode.
func modeTopology(mode string) topology.Topology {
	top := topology.Default()
	top.Cluster.ProxyMode = mode
	return top
}

// shared are the clusters several tests use one after the other, by proxy mode. They leave it as they found it.
var shared = map[string]*sharedCluster{nftables: {}, userspace: {}}

type sharedCluster struct {
	use     sync.Mutex // held by the test that uses the cluster
	cluster *cluster
	err     error
}

// borrow gives a test the shared cluster of a mode, with the workload on it, for itself.
func borrow(t *testing.T, mode string) (*cluster, workload) {
	t.Helper()
	s := shared[mode]
	s.use.Lock()
	t.Cleanup(s.use.Unlock)
	if s.cluster == nil && s.err == nil {
		s.cluster, s.err = bringUp(context.Background(), "shared-"+mode, modeTopology(mode))
		if s.err == nil {
			s.cluster.load(t)
		}
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	t.Cleanup(func() { s.cluster.logs(t) })
	return s.cluster, s.cluster.workload(t)
}

func downShared() error {
	var errs []error
	for _, s := range shared {
		if s.cluster != nil {
			errs = append(errs, s.cluster.Down())
		}
	}
	return errors.Join(errs...)
}

// logs shows the end of every program's log when the test has failed.
func (c *cluster) logs(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, p := range [][2]string{{master, lab.Server}, {node1, lab.Agent}, {node2, lab.Agent}} {
		text, err := os.ReadFile(c.LogFile(p[0], p[1]))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("end of the log of %s on %s:\n%s", p[1], p[0], strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// eventually asks until ok returns nil and says how long that took. It fails the test at the limit, with the last error.
func eventually(t *testing.T, what string, limit time.Duration, ok func() error) time.Duration {
	t.Helper()
	limit *= labtest.Slack
	took, err := within(t.Context(), limit, ok)
	if err != nil {
		t.Fatalf("%s: not after %s: %v", what, limit, err)
	}
	return took
}

// within asks every few milliseconds until ok returns nil.
func within(ctx context.Context, limit time.Duration, ok func() error) (time.Duration, error) {
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		took := time.Since(began)
		if err == nil || took > limit {
			return took, err
		}
		select {
		case <-ctx.Done():
			return took, errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// sh runs a shell command on a host.
func (c *cluster) sh(ctx context.Context, host, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := c.Exec(ctx, host, "sh", "-c", command)
	return strings.TrimSpace(out), err
}

func (c *cluster) must(t *testing.T, host, command string) string {
	t.Helper()
	out, err := c.sh(t.Context(), host, command)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", host, command, err, out)
	}
	return out
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := c.Kubectl(ctx, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// run runs a command on a host and returns all of it, also of one that fails.
func (c *cluster) run(ctx context.Context, host string, cmd ...string) result {
	var out, stderr bytes.Buffer
	began := time.Now()
	err := c.ExecIO(ctx, host, lab.Stdio{Out: &out, Err: &stderr}, cmd...)
	r := result{stdout: out.String(), stderr: stderr.String(), took: time.Since(began)}
	if e, ok := errors.AsType[*lab.ExecError](err); ok {
		r.code = e.Code
	} else if err != nil {
		r.code, r.stderr = -1, r.stderr+err.Error()
	}
	return r
}

type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// status is what "weft status -o json" says of a node's agent, as far as the tests look.
type status struct {
	ProxyMode      string
	Converged      bool
	Pods, Services int
	Network, Rules struct{ Steps, Ops, FirstOps int }
}

func (c *cluster) status(ctx context.Context, node string) (status, error) {
	var s status
	out, err := c.sh(ctx, node, "weft status -o json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("%w: %s", err, out)
	}
	if !s.Converged || s.Network.Steps == 0 || s.Rules.Steps == 0 {
		return s, fmt.Errorf("not converged: %s", out)
	}
	return s, nil
}

// object is a Kubernetes object as far as the tests look.
type object struct {
	Kind     string
	Metadata struct{ Name, UID, DeletionTimestamp string }
	Spec     struct{ NodeName, ClusterIP string }
	Status   struct {
		PodIP             string
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct{ RestartCount int }
	}
}

func (o object) ready() bool {
	return o.Metadata.DeletionTimestamp == "" && slices.ContainsFunc(o.Status.Conditions, func(c struct{ Type, Status string }) bool {
		return c.Type == "Ready" && c.Status == "True"
	})
}

func (o object) String() string { return strings.ToLower(o.Kind) + "/" + o.Metadata.Name }

// objects gets objects in one call, as "kubectl get" takes them.
func (c *cluster) objects(ctx context.Context, args ...string) ([]object, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := c.Kubectl(ctx, append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []object }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("kubectl get %v: %w", args, err)
	}
	return list.Items, nil
}
