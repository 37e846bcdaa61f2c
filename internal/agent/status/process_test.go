package status

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestProcessMetrics: the figures are this process's, and the page for those who come from kube-proxy names them.
func TestProcessMetrics(t *testing.T) {
	var b strings.Builder
	writeProcess(&b)
	got := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+) ([0-9.]+)$`).FindAllStringSubmatch(b.String(), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		got[m[1]] = v
	}
	now := float64(time.Now().Unix())
	for name, between := range map[string][2]float64{
		"go_goroutines": {1, 1000}, "process_cpu_seconds_total": {0, 600}, "process_resident_memory_bytes": {1 << 20, 1 << 30},
		"process_virtual_memory_bytes": {1 << 20, 1 << 50}, "process_start_time_seconds": {now - 3600, now + 2},
		"process_open_fds": {3, 1000}, "process_max_fds": {4, 1 << 40},
	} {
		if v, ok := got[name]; !ok || v < between[0] || v > between[1] {
			t.Errorf("%s %v, want %v", name, v, between)
		}
	}
	page, err := os.ReadFile("../../../docs/migration/from-kube-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range got {
		if !strings.Contains(string(page), name) {
			t.Errorf("the page does not name %s", name)
		}
	}
}
