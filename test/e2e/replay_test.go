package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/lab/topology"
	"weft/internal/replay"
)

// TestReplay performs the walkthrough: every row must show what it shows there, and the transcript be the golden one.
func TestReplay(t *testing.T) {
	l2 := topology.Walkthrough()
	l2.Cluster.Backend.Type = "l2"
	for _, c := range []struct {
		name string
		top  topology.Topology
		run  func(context.Context, replay.Cluster, io.Writer, replay.Options) (replay.Result, error)
	}{
		{"replay", topology.Walkthrough(), replay.Run},
		{"replay-l2", l2, replay.RunL2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster := start(t, c.name, c.top)
			var out strings.Builder
			began := time.Now()
			r, err := c.run(t.Context(), cluster, &out, replay.Options{})
			if err != nil {
				t.Fatalf("%v\n%s", err, tail(out.String(), 60))
			}
			t.Logf("up in %s, %d checks passed in %s", cluster.up.Round(10*time.Millisecond), r.Passed, time.Since(began).Round(10*time.Millisecond))
			compare(t, filepath.Join("testdata", c.name+".golden"), mask(out.String()))
		})
	}
}

// compare compares a masked transcript with the golden one, or makes it the golden one.
func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	now := filepath.Join(t.TempDir(), "now")
	if err := os.WriteFile(now, []byte(got), 0o644); err != nil {
		t.Fatal(err)
	}
	if diff, err := exec.Command("diff", "-u", golden, now).CombinedOutput(); err != nil {
		t.Errorf("the transcript is not the golden one (%v); if it should be: go test ./test/e2e -run TestReplay -update\n%s", err, diff)
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
