package scale

import (
	"testing"
	"time"

	"weft/test/daemon"
)

// BenchmarkKubeProxy is what the real kube-proxy (mode nftables, its defaults) takes with 1,000 services of ten endpoints each, against the same
// API and by the same clock as BenchmarkServices. KUBE_PROXY or bin/kube-proxy is the program.
func BenchmarkKubeProxy(b *testing.B) {
	if programs.kubeProxy == "" {
		b.Skip("no bin/kube-proxy: set KUBE_PROXY to one")
	}
	underlay(b)
	c := newCluster(b)
	const n = 1000
	c.fill(n)
	var cold, change []time.Duration
	var rss float64
	var cpu time.Duration
	for b.Loop() {
		wipe(b)
		e := watchTables(b)
		d := &process{daemon.Daemon{TB: b, Dir: b.TempDir(), Args: []string{
			programs.kubeProxy, "--kubeconfig", c.kubeconfig(), "--proxy-mode", "nftables", "--hostname-override", "bench",
			"--cluster-cidr", "10.1.0.0/16", "--healthz-bind-address", "127.0.0.1:21256", "--metrics-bind-address", "127.0.0.1:21249",
			"--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0s", "--conntrack-tcp-timeout-close-wait", "0s",
		}}}
		start := d.Start()
		cold = append(cold, e.last().Sub(start))
		before := d.Processor()
		change = append(change, changeEndpoints(b, c, n, 30)...)
		cpu += d.Processor() - before
		rss, _, _ = d.Memory()
		d.Kill()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(daemon.Millis(daemon.Quantile(cold, 0.5)), "start-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.5)), "change-p50-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.99)), "change-p99-ms")
	b.ReportMetric(daemon.Millis(cpu)/float64(len(change)), "change-cpu-ms")
	b.ReportMetric(rss, "rss-MiB")
}

// last returns when the last event of a run of them came: after it there was none for three seconds.
func (e *events) last() (at time.Time) {
	e.tb.Helper()
	for {
		t, ok := e.next(map[bool]time.Duration{true: 20 * time.Second, false: 3 * time.Second}[at.IsZero()])
		if !ok {
			if at.IsZero() {
				e.tb.Fatal("it programmed nothing in 20 s")
			}
			return at
		}
		at = t
	}
}
