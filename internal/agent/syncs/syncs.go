// Package syncs counts the steps of the loop of the services under the names that kube-proxy gave to the same.
//
// Floor 4, programs.
package syncs

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
)

// histogram is one of the Prometheus text format.
type histogram struct {
	bounds []float64 // upper ones, ascending
	counts []uint64  // not cumulative
	count  uint64
	sum    float64
}

func (h *histogram) observe(x float64) {
	if h.counts == nil {
		h.counts = make([]uint64, len(h.bounds))
	}
	h.count++
	h.sum += x
	if i, _ := slices.BinarySearch(h.bounds, x); i < len(h.bounds) {
		h.counts[i]++
	}
}

func (h *histogram) write(w io.Writer, name, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
	sum := uint64(0)
	for i, le := range h.bounds {
		if h.counts != nil {
			sum += h.counts[i]
		}
		fmt.Fprintf(w, "%s_bucket{le=\"%g\"} %d\n", name, le, sum)
	}
	fmt.Fprintf(w, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, h.count, name, h.sum, name, h.count)
}

// Bounds as kube-proxy's metrics of the same names have them, in seconds.
var (
	syncBounds    = doubling(0.001, 15)
	networkBounds = slices.Concat(rising(0.25, 0.25, 2), rising(1, 1, 59), rising(60, 5, 12), rising(120, 30, 7))
)

func doubling(from float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = from
		from *= 2
	}
	return out
}

func rising(from, by float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = from + float64(i)*by
	}
	return out
}

// Syncs counts the steps of the services' loop under the names that kube-proxy gave to the same. A step brings both families up to date, so
// there is no label ip_family.
type Syncs struct {
	mu                          sync.Mutex
	all, full, partial, network histogram
	last, queued                time.Time
	behind                      time.Time // since when the rules may not be as planned; zero: they are
	failed                      map[facts.ProxyMode]int
}

// Step takes in a step: c is what it did something for.
func (s *Syncs) Step(begun, ended time.Time, due loop.Cause, mode facts.ProxyMode, c *api.ServiceChanges, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = map[facts.ProxyMode]int{}
		s.all.bounds, s.full.bounds, s.partial.bounds, s.network.bounds = syncBounds, syncBounds, syncBounds, networkBounds
	}
	took := ended.Sub(begun).Seconds()
	s.queued = begun
	s.all.observe(took)
	if due&(loop.ByTime|loop.ByHost) != 0 {
		s.full.observe(took)
	} else {
		s.partial.observe(took)
	}
	if err != nil {
		s.failed[mode]++
		return
	}
	s.last = ended
	if c == nil {
		return
	}
	for _, t := range c.Triggered {
		s.network.observe(max(0, ended.Sub(t).Seconds()))
	}
}

// Updated is when the last step that worked ended, zero before the first.
func (s *Syncs) Updated() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// WriteMetrics prints what kube-proxy's metrics of the same names say.
func (s *Syncs) WriteMetrics(w io.Writer, forgotten int, noLocal [2]int, counts map[string][2]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const p = "kubeproxy_sync_proxy_rules_"
	s.all.write(w, p+"duration_seconds", "how long a step of the services' loop took")
	s.full.write(w, "kubeproxy_sync_full_proxy_rules_duration_seconds", "the same for steps that looked at everything")
	s.partial.write(w, "kubeproxy_sync_partial_proxy_rules_duration_seconds", "the same for steps that looked at what changed")
	s.network.write(w, "kubeproxy_network_programming_duration_seconds",
		"from the change of a pod or service, as its EndpointSlice says, until the kernel had it")
	one := func(name, labels, help, kind string, v float64) {
		if help != "" {
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		}
		fmt.Fprintf(w, "%s%s %.14g\n", name, labels, v)
	}
	one(p+"last_timestamp_seconds", "", "when the rules were last brought up to date", "gauge", seconds(s.last))
	one(p+"last_queued_timestamp_seconds", "", "when that was last begun", "gauge", seconds(s.queued))
	one(p+"nftables_sync_failures_total", "", "steps that failed in mode nftables", "counter", float64(s.failed[facts.NFTables]))
	one(p+"iptables_restore_failures_total", "", "steps that failed in the modes with iptables", "counter",
		float64(s.failed[facts.IPTables]+s.failed[facts.Userspace]))
	one("kubeproxy_conntrack_reconciler_deleted_entries_total", "", "connection tracking entries deleted because they led elsewhere", "counter",
		float64(forgotten))
	help := "service ports with a traffic policy Local that have endpoints, but none on this node"
	for i, policy := range []string{"internal", "external"} {
		one(p+"no_local_endpoints_total", fmt.Sprintf("{traffic_policy=%q}", policy), help, "gauge", float64(noLocal[i]))
		help = ""
	}
	help = "rules of weft's in iptables"
	for _, table := range slices.Sorted(maps.Keys(counts)) {
		for i, family := range []string{"IPv4", "IPv6"} {
			one(p+"iptables_total", fmt.Sprintf("{table=%q,ip_family=%q}", table, family), help, "gauge", float64(counts[table][i]))
			help = ""
		}
	}
}

// seconds is a time since 1970, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
