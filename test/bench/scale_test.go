package bench

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

// underlay gives this namespace an interface with a default route, once.
func underlay(tb testing.TB) {
	tb.Helper()
	netns.Need(tb)
	if exec.Command("ip", "link", "show", "eth0").Run() == nil {
		return
	}
	for _, line := range []string{
		"ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up",
		"ip addr add 172.17.200.1/16 dev eth0", "ip route add default via 172.17.0.1",
	} {
		daemon.Run(tb, line)
	}
}

// wipe takes away what a daemon made.
func wipe(tb testing.TB) {
	tb.Helper()
	_ = exec.Command("ip", "link", "del", "flannel.1").Run()
	_ = exec.Command("ip", "route", "flush", "proto", "119").Run()
	_ = exec.Command("nft", "flush", "ruleset").Run()
}

// BenchmarkLeases starts the daemon with 5,000 leases in its store and nothing in the kernel (cold), starts it again with everything in
// place (restart), and adds single leases.
func BenchmarkLeases(b *testing.B) {
	for _, name := range []string{weft, flannel} {
		b.Run(name, func(b *testing.B) { leases(b, name, 5000, 0, 300) })
	}
}

// BenchmarkFar is the same with 1,000 leases in a store that is 2.5 ms away, each way.
func BenchmarkFar(b *testing.B) {
	for _, name := range []string{weft, flannel} {
		b.Run(name, func(b *testing.B) { leases(b, name, 1000, 2500*time.Microsecond, 50) })
	}
}

// BenchmarkCurve is the agent alone with more and more leases.
func BenchmarkCurve(b *testing.B) {
	for _, n := range []int{1000, 2500, 5000, 10000, 20000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) { leases(b, weft, n, 0, 50) })
	}
}

func leases(b *testing.B, name string, n int, away time.Duration, added int) {
	underlay(b)
	s := newStore(b, n)
	url := s.server.URL
	if away > 0 {
		url = s.far(away)
	}
	d := newProcess(b, name, s, url)
	t := openTable(b)
	var m measured
	for b.Loop() {
		m.round(b, d, t, added)
	}
	m.report(b, n)
}

// measured collects the rounds.
type measured struct {
	cold, restart, afterPut, fromPut []time.Duration
	rss, anon, peak, busy            float64 // MiB; busy is after many leases came and went
	ops                              int
}

func (m *measured) round(b *testing.B, d *process, t *table, added int) {
	n := d.store.n
	wipe(b)
	d.store.forget()
	start := d.Start()
	m.cold = append(m.cold, t.full(n, time.Minute).Sub(start))
	if neigh, fdb := t.entries(unix.AF_INET), t.entries(unix.AF_BRIDGE); neigh < n || fdb < n {
		b.Fatalf("%d neighbours and %d forwarding entries for %d leases", neigh, fdb, n)
	}
	if d.name == weft {
		d.settled(time.Minute)
	}
	if d.name == weft {
		time.Sleep(6 * time.Second) // it gives back what the start took
	}
	m.weigh(d)
	d.heap("cold")
	d.Kill()
	if d.name == weft {
		start = d.Start()
		status, at := d.settled(time.Minute)
		m.restart = append(m.restart, at.Sub(start))
		m.ops = max(m.ops, status.Network.FirstOps+status.Rules.FirstOps)
	} else {
		// Flannel does not say when it is through. It works its leases off in the order of their keys; so it is when it has added one that
		// is the last of them and not in the kernel yet.
		last, value := d.store.entry(n + 255)
		d.store.put(last, value)
		m.restart = append(m.restart, t.appears(n+255, d.Start))
		d.store.remove(last)
	}
	wait := d.cpu("added")
	for i := range added {
		m.add(d, t, n+i%200)
	}
	wait()
	m.busy, _, _ = d.Memory()
	d.heap("added")
	d.Kill()
}

// weigh looks at its memory.
func (m *measured) weigh(d *process) {
	rss, anon, peak := d.Memory()
	m.rss, m.anon, m.peak = max(m.rss, rss), max(m.anon, anon), max(m.peak, peak)
}

// add puts one lease into the store, waits for its route, and takes it out again.
func (m *measured) add(d *process, t *table, i int) {
	key, value := d.store.entry(i)
	var putting time.Duration
	took := t.appears(i, func() time.Time {
		before := time.Now()
		d.store.put(key, value)
		putting = time.Since(before)
		return before.Add(putting)
	})
	// An event may be faster than the answer to the one who caused it.
	m.afterPut = append(m.afterPut, max(0, took))
	m.fromPut = append(m.fromPut, putting+took)
	d.store.remove(key)
	for end := time.Now().Add(10 * time.Second); t.has(i) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond)
}

func (m *measured) report(b *testing.B, n int) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(daemon.Millis(median(m.cold)), "cold-ms")
	b.ReportMetric(daemon.Millis(median(m.cold))*1000/float64(n), "cold-us/lease")
	b.ReportMetric(daemon.Millis(median(m.restart)), "restart-ms")
	b.ReportMetric(float64(m.ops), "restart-ops")
	b.ReportMetric(daemon.Millis(daemon.Quantile(m.afterPut, 0.5)), "added-p50-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(m.afterPut, 0.99)), "added-p99-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(m.fromPut, 0.5)), "put+added-p50-ms")
	b.ReportMetric(m.rss, "rss-MiB")
	b.ReportMetric(m.anon, "rss-anon-MiB")
	b.ReportMetric(m.busy, "rss-busy-MiB")
	b.ReportMetric(m.peak, "peak-MiB")
}
