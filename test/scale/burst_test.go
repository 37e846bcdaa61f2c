package scale

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/agent/status"
)

// TestBurst changes 5,000 EndpointSlices at once: few transactions take them all, and the first does not wait for the last.
func TestBurst(t *testing.T) {
	underlay(t)
	wipe(t)
	const n = 5000
	c := newCluster(t)
	c.fill(n)
	d := newAgent(t, c)
	d.Start()
	d.settled(n, time.Minute)
	e := watchTables(t)
	e.drain()
	before := d.Status().Rules
	start := time.Now()
	written := make(chan time.Duration, 1)
	go func() {
		for i := range n {
			c.put(slicesPath, slice(i, corev1.ProtocolTCP, targetPort, tenOf(i, 1)...))
		}
		written <- time.Since(start)
	}()
	first, ok := e.next(time.Minute)
	if !ok {
		t.Fatal("nothing changed in the kernel")
	}
	wrote := <-written
	s, at := d.calm(n)
	transactions := s.Rules.Steps - before.Steps
	t.Logf("%d slices written in %s: first in the kernel after %s, %d steps, %d ops, all within %s", n, wrote, first.Sub(start),
		transactions, s.Rules.Ops-before.Ops, at.Sub(start))
	if s.Rules.Ops-before.Ops < 2*n {
		t.Errorf("%d ops for %d changed endpoints", s.Rules.Ops-before.Ops, n)
	}
	if transactions > n/5 {
		t.Errorf("%d transactions for %d changes", transactions, n)
	}
	if have := endpoints(t); have != 10*n {
		t.Errorf("%d elements of endpoints, want %d", have, 10*n)
	}
}

// calm waits until the agent has done nothing for a while, and returns when it began to.
func (d *process) calm(n int) (s status.Status, since time.Time) {
	d.TB.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		now := d.Status()
		if now.Rules.Ops != s.Rules.Ops || now.Rules.Steps == 0 {
			s, since = now, time.Now()
		} else if time.Since(since) > 2*time.Second {
			d.settled(n, time.Minute)
			return s, since
		}
	}
	d.TB.Fatal("the agent does not come to rest")
	return s, since
}
