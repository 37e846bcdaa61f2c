package xt_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	kernelxt "weft/internal/kernel/xt"
)

// TestWatchLegacy: a flushed chain of a legacy table is noticed, and watching makes no tables.
func TestWatchLegacy(t *testing.T) {
	netns.Need(t)
	ch, err := kernelxt.WatchLegacy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fired := func(within time.Duration) bool {
		select {
		case <-ch:
			return true
		case <-time.After(within):
			return false
		}
	}
	if fired(1200 * time.Millisecond) {
		t.Error("an event of nothing")
	}
	if names, err := os.ReadFile("/proc/self/net/ip_tables_names"); err != nil || len(names) > 0 {
		t.Errorf("tables without anybody's rules: %q, %v", names, err)
	}
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		for _, args := range [][]string{{"-N", "MINE"}, {"-A", "MINE", "-j", "ACCEPT"}, {"-F", "MINE"}, {"-A", "INPUT", "-j", "MINE"}, {"-F"}} {
			if out, err := exec.CommandContext(t.Context(), program, append([]string{"-t", "nat"}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%s %v: %v: %s", program, args, err, out)
			}
			if !fired(30 * time.Second) {
				t.Errorf("%s %v: no event", program, args)
			}
		}
	}
}
