package scale

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// weighings is how often the agent's memory is looked at in a storm.
const weighings = 40

// growth is by how many of the same unit the samples of a curve grew: from the middle of its second quarter to that of its last. The first
// quarter is the start, in which everything takes what it needs. Medians, as a heap's samples are a saw.
func growth(curve []float64) (from, to float64) {
	q := len(curve) / 4
	if q == 0 {
		return 0, 0
	}
	return middle(curve[q : 2*q]), middle(curve[len(curve)-q:])
}

// flatLimit is what a curve that begins there may rise to: the noise of a garbage collector. In less than some minutes the sessions of
// mode userspace, which end 30 s after their last datagram, are more and more, too.
func flatLimit(from float64, took time.Duration) float64 {
	if took < 2*time.Minute {
		return 1.5*from + 3
	}
	return 1.1*from + 3
}

// flat prints the memory's curve in MiB and checks that it does not rise.
func (s *storm) flat(t *testing.T, curve []float64) {
	t.Helper()
	var text strings.Builder
	for _, m := range curve {
		fmt.Fprintf(&text, " %.1f", m)
	}
	from, to := growth(curve)
	t.Logf("resident memory, MiB:%s; %.1f to %.1f", text.String(), from, to)
	if len(curve) < weighings*3/4 || to > flatLimit(from, *stormFor) {
		t.Errorf("memory grew from %.1f to %.1f MiB (%d samples)", from, to, len(curve))
	}
}

// TestFlat checks the check: a saw is flat, doubled memory or a leak of 350 KiB in each of the samples is not.
func TestFlat(t *testing.T) {
	for what, c := range map[string]struct {
		of   func(i int) float64
		flat bool
	}{
		"level":         {func(int) float64 { return 30 }, true},
		"start":         {func(i int) float64 { return 30 - max(0, float64(8-i)) }, true},
		"saw":           {func(i int) float64 { return 30 + 4*float64(i%5) }, true},
		"leak":          {func(i int) float64 { return 30 + 0.35*float64(i) }, false},
		"leak in a saw": {func(i int) float64 { return 30 + 0.4*float64(i) + 4*float64(i%5) }, false},
		"doubled":       {func(i int) float64 { return 30 * (1 + float64(i/30)) }, false},
	} {
		var curve []float64
		for i := range weighings {
			curve = append(curve, c.of(i))
		}
		if from, to := growth(curve); (to <= flatLimit(from, time.Hour)) != c.flat {
			t.Errorf("%s: from %.1f to %.1f, limit %.1f", what, from, to, flatLimit(from, time.Hour))
		}
	}
}

// late is how long after its time a timer of this process ran: what the machine, not the agent, adds to all that is measured.
type late struct{ worst time.Duration }

func (l *late) watch(end time.Time) {
	const every = 5 * time.Millisecond
	for now := time.Now(); now.Before(end); {
		time.Sleep(every)
		next := time.Now()
		l.worst = max(l.worst, next.Sub(now)-every)
		now = next
	}
}
