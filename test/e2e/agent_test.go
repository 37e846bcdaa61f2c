package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/test/labtest"
)

// TestAgentKilled kills the agents of both nodes during a transfer between two pods: the transfer goes on, and the agents that start
// again find nothing to do.
func TestAgentKilled(t *testing.T) {
	for _, mode := range []string{nftables, userspace} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := start(t, "agent-"+mode, modeTopology(mode))
			c.load(t)
			w := c.workload(t)
			still, began := labtest.NewStill(t), time.Now()
			tr := c.transfer(t, w.web[node2], w.client)
			tr.usual() // until it began
			tr.more(t, 10<<20)
			usual := tr.usual()
			for _, n := range nodes {
				if err := c.Signal(t.Context(), n, lab.Agent, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			tr.more(t, 5<<20)
			if mode == nftables {
				c.newConnections(t, w)
			}
			for _, n := range nodes {
				c.startAgent(t, n)
			}
			tr.more(t, 5<<20)
			sent, received, gap := tr.end(t)
			if sent != received || sent == 0 {
				t.Errorf("%d bytes were sent, %d received", sent, received)
			}
			t.Logf("transfer of %d MiB over the kill and the restart, longest time without a packet %s, before that %s", sent>>20, gap.Round(time.Millisecond), usual.Round(time.Millisecond))
			if gap > still.Allow(time.Second+5*usual, began) {
				t.Errorf("the transfer stood still for %s, before the kill for at most %s", gap, usual)
			}
			c.samePods(t, w)
			eventually(t, "the service after the restart", 5*time.Second, func() error {
				_, err := c.get(t.Context(), node1, w.url())
				return err
			})
		})
	}
}

// newConnections makes connections to the service while no agent runs, from a node and from a pod; both endpoints must answer.
func (c *cluster) newConnections(t *testing.T, w workload) {
	t.Helper()
	ask := "for i in $(seq 20); do curl -sS -f -m 5 " + w.url() + " || exit 1; done"
	for from, command := range map[string]string{"node": ask, "pod": c.inPod(t, w.client, "sh -c '"+ask+"'")} {
		out := c.must(t, node1, command)
		for _, p := range w.web {
			if !strings.Contains(out, "pod_name="+p.Metadata.Name+"\n") {
				t.Errorf("20 new connections from a %s without an agent never reached %s", from, p)
			}
		}
	}
	t.Log("40 new connections to the service's address without an agent, none failed")
}

// startAgent starts a killed agent; its first step must change nothing.
func (c *cluster) startAgent(t *testing.T, node string) {
	t.Helper()
	began := time.Now()
	if err := c.Start(t.Context(), node, lab.Agent); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context(), node, lab.Agent); err != nil {
		t.Fatal(err)
	}
	var s status
	eventually(t, "the agent's first steps on "+node, 10*time.Second, func() (err error) {
		s, err = c.status(t.Context(), node)
		return err
	})
	t.Logf("%s: converged %s after the start, ops in the first step: network %d, rules %d",
		node, time.Since(began).Round(time.Millisecond), s.Network.FirstOps, s.Rules.FirstOps)
	if s.Network.FirstOps != 0 || s.Rules.FirstOps != 0 {
		t.Errorf("%s: a restarted agent changed something in its first step: network %d, rules %d ops", node, s.Network.FirstOps, s.Rules.FirstOps)
		t.Log(c.must(t, node, "weft state"))
	}
}

// samePods checks that the workload's pods are the same ones, never restarted.
func (c *cluster) samePods(t *testing.T, w workload) {
	t.Helper()
	now := map[string]object{}
	after := c.workload(t)
	for _, p := range []object{after.client, after.web[node1], after.web[node2]} {
		now[p.Metadata.UID] = p
	}
	for _, p := range []object{w.client, w.web[node1], w.web[node2]} {
		same, ok := now[p.Metadata.UID]
		if !ok {
			t.Errorf("%s is gone", p)
		}
		for _, s := range same.Status.ContainerStatuses {
			if s.RestartCount != 0 {
				t.Errorf("%s was restarted %d times", p, s.RestartCount)
			}
		}
	}
}
