package kube

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestChangeMetrics: changes are pending until the Feed gives them away, and the page for those who come from kube-proxy names the metrics.
func TestChangeMetrics(t *testing.T) {
	w := newWatch()
	f := w.Feed()
	f.Snapshot()
	check := func(what string, want ...int) {
		t.Helper()
		var b strings.Builder
		w.WriteMetrics(&b)
		for i, name := range []string{"service_changes_total", "service_changes_pending", "endpoint_changes_total", "endpoint_changes_pending"} {
			if line := fmt.Sprintf("kubeproxy_sync_proxy_rules_%s %d\n", name, want[i]); !strings.Contains(b.String(), line) {
				t.Errorf("%s: no %s in\n%s", what, line, &b)
			}
		}
	}
	s := testService(1, 80)
	for _, err := range []error{
		w.services.Add(s), w.slices.Add(testSlice(s, "-a", 1)), w.slices.Add(testSlice(s, "-a", 1)), w.slices.Add(testSlice(s, "-a", 1, 2)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	check("before the plan", 1, 1, 2, 2) // the second slice is the first once more
	f.Snapshot()
	check("after it", 1, 0, 2, 0)
	(*Watch)(nil).WriteMetrics(nil)
	page, err := os.ReadFile("../../../docs/migration/from-kube-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	w.WriteMetrics(&b)
	for _, m := range regexp.MustCompile("# TYPE (kubeproxy_[a-z_]+)").FindAllStringSubmatch(b.String(), -1) {
		if !strings.Contains(string(page), "`"+m[1]+"`") {
			t.Errorf("no %s on the page", m[1])
		}
	}
}
