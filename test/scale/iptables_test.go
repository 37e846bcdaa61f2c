package scale

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/test/daemon"
)

// BenchmarkIPTables is the agent in mode iptables with services of ten endpoints each, with both variants of the programs: from exec to
// "converged" in an empty kernel, and from a write of the API until the agent has done what a changed endpoint changes (the legacy variant
// has no events of the kernel). WEFT_IPTABLES names other numbers of services than 1000.
func BenchmarkIPTables(b *testing.B) {
	for _, variant := range []string{"nft", "legacy"} {
		for size := range strings.FieldsSeq(cmp.Or(os.Getenv("WEFT_IPTABLES"), "1000")) {
			n, err := strconv.Atoi(size)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s/services=%d", variant, n), func(b *testing.B) { byIPTables(b, variant, n) })
		}
	}
}

func byIPTables(b *testing.B, variant string, n int) {
	programsOf(b, variant)
	underlay(b)
	c := newCluster(b)
	c.fill(n)
	var cold, change []time.Duration
	var cpu time.Duration
	for b.Loop() {
		wipe(b)
		d := newAgent(b, c, "--proxy-mode=iptables")
		start := d.Start()
		_, at := d.settled(n, 5*time.Minute)
		cold = append(cold, at.Sub(start))
		before := d.Processor()
		for k := range 20 {
			i := k * 37 % n
			s := slice(i, corev1.ProtocolTCP, targetPort, tenOf(i, 1)...)
			change = append(change, d.stepped(func() { c.put(slicesPath, s) }))
		}
		cpu += d.Processor() - before
		d.Kill()
		daemon.Run(b, "iptables-"+variant+" -t nat -F")
		daemon.Run(b, "iptables-"+variant+" -t nat -X")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(daemon.Millis(daemon.Quantile(cold, 0.5)), "start-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.5)), "change-p50-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.99)), "change-p99-ms")
	b.ReportMetric(daemon.Millis(cpu)/float64(len(change)), "agent-change-cpu-ms")
}

// stepped does something and returns how long after it the agent had done another step of the rules, with ops, and was as planned.
func (d *process) stepped(do func()) time.Duration {
	d.TB.Helper()
	before := d.Status().Rules.Ops
	time.Sleep(gap)
	start := time.Now()
	do()
	for end := start.Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s := d.Status(); s.Converged && s.Rules.Ops > before {
			return time.Since(start)
		}
	}
	d.TB.Fatalf("no step for a minute: %+v\n%s", d.Status(), d.Log)
	return 0
}

// programsOf makes iptables of one variant the default of this test.
func programsOf(b *testing.B, variant string) {
	b.Helper()
	dir := b.TempDir()
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(family + "-" + variant + verb)
			if err != nil {
				b.Skip(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, family+verb)); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// BenchmarkKubeProxyIPTables is the real kube-proxy in mode iptables with 1,000 services, on the nf_tables variant, by the kernel's events.
func BenchmarkKubeProxyIPTables(b *testing.B) {
	if programs.kubeProxy == "" {
		b.Skip("no bin/kube-proxy: set KUBE_PROXY to one")
	}
	const n = 1000
	programsOf(b, "nft")
	underlay(b)
	c := newCluster(b)
	c.fill(n)
	var cold, change []time.Duration
	for b.Loop() {
		wipe(b)
		e := watchTables(b)
		d := &process{daemon.Daemon{TB: b, Dir: b.TempDir(), Args: []string{
			programs.kubeProxy, "--kubeconfig", c.kubeconfig(), "--proxy-mode", "iptables", "--hostname-override", "bench",
			"--cluster-cidr", "10.1.0.0/16", "--healthz-bind-address", "127.0.0.1:21256", "--metrics-bind-address", "127.0.0.1:21249",
			"--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0s", "--conntrack-tcp-timeout-close-wait", "0s",
		}}}
		start := d.Start()
		var at time.Time // of the last event before a long silence: it makes some chains at once and the rest seconds later
		for begun := time.Now(); time.Since(begun) < time.Minute; {
			t, ok := e.next(15 * time.Second)
			if !ok {
				break
			}
			at = t
		}
		cold = append(cold, at.Sub(start))
		change = append(change, changeEndpoints(b, c, n, 20)...)
		d.Kill()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(daemon.Millis(daemon.Quantile(cold, 0.5)), "start-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.5)), "change-p50-ms")
	b.ReportMetric(daemon.Millis(daemon.Quantile(change, 0.99)), "change-p99-ms")
}
