package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/lab"
)

// TestServerKilled kills the server: services work on without it, and it returns with every object; the agents, which were never
// restarted, follow what happens then.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	c := start(t, "server", modeTopology(nftables))
	c.load(t)
	w := c.workload(t)
	before := c.inventory(t)
	agents := c.agents(t)
	if err := c.Signal(t.Context(), master, lab.Server, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ask := "for i in $(seq 20); do curl -sS -f -m 5 " + w.url() + " >/dev/null || exit 1; busybox usleep 50000; done"
	c.must(t, node2, ask)
	c.must(t, node1, c.inPod(t, w.client, "sh -c '"+ask+"'"))
	t.Log("40 new connections over 2 s without the server, none failed")

	began := time.Now()
	if err := c.Start(t.Context(), master, lab.Server); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context(), master, lab.Server); err != nil {
		t.Fatal(err)
	}
	t.Logf("the server is ready %s after its start", time.Since(began).Round(time.Millisecond))
	after := c.inventory(t)
	for name, id := range before {
		if after[name] != id {
			t.Errorf("%s was %s, is %q after the server's return", name, id, after[name])
		}
	}
	t.Logf("%d objects with the same UID and service address", len(before))
	c.kubectl(t, "scale", "rc", "web", "--replicas=3")
	for _, n := range nodes {
		eventually(t, "a third endpoint on "+n, 30*time.Second, func() error { return c.hasEndpoints(t, n, 3) })
	}
	t.Logf("a new pod is in the rules of both nodes %s after the server's start", time.Since(began).Round(time.Millisecond))
	if now := c.agents(t); !maps.Equal(now, agents) {
		t.Errorf("agents were %v, are %v", agents, now)
	}
}

// inventory is every object the cluster's user cares for: its UID and, of a service, its address.
func (c *cluster) inventory(t *testing.T) map[string]string {
	t.Helper()
	all, err := c.objects(t.Context(), "-A", "nodes,namespaces,serviceaccounts,replicationcontrollers,services,pods")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, o := range all {
		m[o.String()] = strings.TrimSpace(o.Metadata.UID + " " + o.Spec.ClusterIP)
	}
	if len(m) < 10 {
		t.Fatalf("only %d objects: %v", len(m), m)
	}
	return m
}

// agents are the process ids of the nodes' agents, as the nodes number them.
func (c *cluster) agents(t *testing.T) map[string]int {
	t.Helper()
	m := map[string]int{}
	for _, n := range nodes {
		all, err := c.Programs(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if p.Name == lab.Agent {
				m[n] = p.PID
			}
		}
	}
	return m
}

// hasEndpoints checks that a node's rules know so many Ready pods of the service, and all there are.
func (c *cluster) hasEndpoints(t *testing.T, node string, n int) error {
	pods, err := c.objects(t.Context(), "pods", "-l", "app=web")
	if err != nil {
		return err
	}
	pods = slices.DeleteFunc(pods, func(p object) bool { return !p.ready() })
	if len(pods) != n {
		return fmt.Errorf("%d pods are Ready", len(pods))
	}
	out, err := c.rules(t.Context(), node)
	if err != nil {
		return err
	}
	for _, p := range pods {
		if !holds(out, p.Status.PodIP) {
			return fmt.Errorf("%s is not in the rules", p.Status.PodIP)
		}
	}
	return nil
}
