package e2e

import (
	"errors"
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
	t.Parallel()
	c := start(t, "replay", topology.Walkthrough())
	var out strings.Builder
	began := time.Now()
	r, err := replay.Run(t.Context(), c, &out, replay.Options{})
	if err != nil {
		t.Errorf("%v\n%s", err, tail(out.String(), 60))
	}
	t.Logf("up in %s, %d checks passed in %s", c.up.Round(10*time.Millisecond), r.Passed, time.Since(began).Round(10*time.Millisecond))
	if t.Failed() {
		return
	}
	golden := filepath.Join("testdata", "replay.golden")
	got := mask(out.String())
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	now := filepath.Join(t.TempDir(), "replay.now")
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
