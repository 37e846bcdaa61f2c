package syncs

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
)

// TestSyncMetrics: names and meaning are kube-proxy's.
func TestSyncMetrics(t *testing.T) {
	var s Syncs
	at := time.UnixMilli(1_800_000_000_500)
	s.Step(at, at.Add(3*time.Millisecond), loop.ByTime, facts.NFTables, nil, nil)
	s.Step(at, at.Add(500*time.Microsecond), loop.ByPlan, facts.NFTables, &api.ServiceChanges{Triggered: []time.Time{at.Add(-700 * time.Millisecond)}}, nil)
	s.Step(at.Add(time.Second), at.Add(2*time.Second), loop.ByPlan, facts.IPTables, nil, errors.New("refused"))
	var b strings.Builder
	s.WriteMetrics(&b, 7, [2]int{2, 1}, map[string][2]int{"nat": {12, 0}})
	for _, want := range []string{
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.001"} 1`, `kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.004"} 2`,
		"kubeproxy_sync_proxy_rules_duration_seconds_count 3", "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1",
		"kubeproxy_sync_partial_proxy_rules_duration_seconds_count 2", `kubeproxy_network_programming_duration_seconds_bucket{le="0.5"} 0`,
		`kubeproxy_network_programming_duration_seconds_bucket{le="1"} 1`,
		"kubeproxy_sync_proxy_rules_last_timestamp_seconds 1800000000.5", "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds 1800000001.5",
		"kubeproxy_sync_proxy_rules_nftables_sync_failures_total 0", "kubeproxy_sync_proxy_rules_iptables_restore_failures_total 1",
		"kubeproxy_conntrack_reconciler_deleted_entries_total 7", `kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal"} 2`,
		`kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external"} 1`,
		`kubeproxy_sync_proxy_rules_iptables_total{table="nat",ip_family="IPv4"} 12`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
	seen := map[string]bool{}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "# TYPE ") && seen[line] {
			t.Errorf("twice: %s", line)
		}
		seen[line] = true
	}
}

// TestMetricsOnThePage: what the page for those who come from kube-proxy calls the same is there, and nothing else.
func TestMetricsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/migration/from-kube-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	new(Syncs).WriteMetrics(&b, 0, [2]int{}, map[string][2]int{"nat": {}})
	name := regexp.MustCompile("kubeproxy_[a-z_]+")
	var want, got []string
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Contains(cells[2], "the same") {
			for _, m := range name.FindAllString(cells[1], -1) {
				// Those are the agent's answers, and what the watch of the API counts.
				if !strings.HasPrefix(m, "kubeproxy_proxy_") && !strings.Contains(m, "_changes_") {
					want = append(want, m)
				}
			}
		}
	}
	for _, m := range regexp.MustCompile("# TYPE (kubeproxy_[a-z_]+)").FindAllStringSubmatch(b.String(), -1) {
		got = append(got, m[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-page +program\n%s", d)
	}
}

// TestHealthy: rules that are behind for longer than Patience are unhealthy, whether steps fail or one does not end, until a step works.
func TestHealthy(t *testing.T) {
	var s Syncs
	at := time.UnixMilli(1_800_000_000_000)
	check := func(what string, now time.Time, want bool) {
		t.Helper()
		if got := s.Healthy(now); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	check("before the first step", at.Add(time.Hour), true)
	s.Begin(at)
	check("in a step", at.Add(Patience-time.Second), true)
	s.Begin(at.Add(30 * time.Second)) // the one before failed
	check("failing for long", at.Add(Patience), false)
	s.InForce()
	check("as planned", at.Add(2*time.Hour), true)
	s.Begin(at.Add(2 * time.Hour))
	check("in the next", at.Add(2*time.Hour+time.Second), true)
}
