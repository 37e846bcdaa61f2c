package scale

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/test/daemon"
)

// wipe takes away what a daemon made.
func wipe(tb testing.TB) {
	tb.Helper()
	_ = exec.Command("ip", "link", "del", "flannel.1").Run()
	_ = exec.Command("ip", "route", "flush", "proto", "119").Run()
	_ = exec.Command("nft", "flush", "ruleset").Run()
}

// BenchmarkServices starts the agent with n services of ten endpoints each and nothing in the kernel (cold), starts it again with
// everything in place (restart), and changes single endpoints and services.
func BenchmarkServices(b *testing.B) {
	for _, n := range []int{1000, 10000, 50000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { services(b, n, 400) })
	}
}

func services(b *testing.B, n, changes int) {
	underlay(b)
	c := newCluster(b)
	c.fill(n)
	var cold, restart, change, whole []time.Duration
	var rss, peak, idle float64
	var cpu, startCPU, restartCPU time.Duration
	ops := 0
	for b.Loop() {
		wipe(b)
		d := newAgent(b, c)
		start := d.Start()
		recorded := d.profile(profileName("cold", n), during(n))
		_, at := d.settled(n, 2*time.Minute)
		cold, startCPU = append(cold, at.Sub(start)), startCPU+d.Processor()
		recorded()
		if have := endpoints(b); have != 10*n {
			b.Fatalf("%d elements of endpoints in the kernel, want %d", have, 10*n)
		}
		rss, _, peak = d.Memory()
		before := d.Processor()
		change = append(change, changeEndpoints(b, c, n, changes)...)
		cpu += d.Processor() - before
		whole = append(whole, changeServices(b, c, n, 20)...)
		idle, _, _ = d.Memory()
		d.Kill()
		start = d.Start()
		recorded = d.profile(profileName("restart", n), during(n))
		s, at := d.settled(n, 2*time.Minute)
		restart, restartCPU = append(restart, at.Sub(start)), restartCPU+d.Processor()
		recorded()
		ops = max(ops, s.Rules.FirstOps)
		d.Kill()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(daemon.Millis(daemon.Quantile(cold, 0.5)), "start-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(restart, 0.5)), "restart-ms")
	b.ReportMetric(float64(ops), "restart-ops")
	b.ReportMetric(daemon.Millis(startCPU)/float64(len(cold)), "start-cpu-ms")
	b.ReportMetric(daemon.Millis(restartCPU)/float64(len(restart)), "restart-cpu-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.5)), "change-p50-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.99)), "change-p99-ms")
	b.ReportMetric(daemon.Millis(cpu)/float64(len(change)), "change-cpu-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(whole, 0.5)), "service-p50-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(whole, 0.99)), "service-p99-ms")
	b.ReportMetric(rss, "rss-MiB")
	b.ReportMetric(idle, "rss-after-MiB")
	b.ReportMetric(peak, "peak-MiB")
}

// gap is how long nothing happens between two changes that are measured.
const gap = 15 * time.Millisecond

// changeEndpoints replaces one endpoint of one service after the other and returns how long after each write of the API the kernel told
// of its new rules.
func changeEndpoints(tb testing.TB, c *cluster, n, times int) (took []time.Duration) {
	tb.Helper()
	e := watchTables(tb)
	for k := range times {
		i := k * 37 % n
		s := slice(i, corev1.ProtocolTCP, targetPort, tenOf(i, k/n+1)...)
		took = append(took, e.after(func() { c.put(slicesPath, s) }))
	}
	for k := range times {
		i := k * 37 % n
		c.put(slicesPath, slice(i, corev1.ProtocolTCP, targetPort, tenOf(i, 0)...))
	}
	e.quiet()
	return took
}

// changeServices removes single services and makes them again.
func changeServices(tb testing.TB, c *cluster, n, times int) (took []time.Duration) {
	tb.Helper()
	e := watchTables(tb)
	for k := range times {
		s := service(k*41%n, corev1.ProtocolTCP)
		took = append(took, e.after(func() { c.remove(servicesPath, s) }), e.after(func() { c.put(servicesPath, s) }))
	}
	e.quiet()
	return took
}

// after does something in the quiet and returns how long after it the kernel told of a change.
func (e *events) after(do func()) time.Duration {
	e.tb.Helper()
	time.Sleep(gap)
	e.drain()
	start := time.Now()
	do()
	at, ok := e.next(30 * time.Second)
	if !ok {
		e.tb.Fatal("nothing changed in the kernel for 30 s")
	}
	return at.Sub(start)
}

// quiet waits until nothing has changed for a while.
func (e *events) quiet() {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if _, ok := e.next(300 * time.Millisecond); !ok {
			return
		}
		e.drain()
	}
}
