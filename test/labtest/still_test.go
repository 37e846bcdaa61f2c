package labtest

import (
	"testing"
	"time"
)

// TestStill: a standstill counts for what was under way in it, and not for what began later.
func TestStill(t *testing.T) {
	at := time.Unix(1000, 0)
	s := &Still{pauses: []pause{{at.Add(time.Second), 300 * time.Millisecond}, {at.Add(2 * time.Second), 100 * time.Millisecond}}}
	for after, want := range map[time.Duration]time.Duration{
		0: 300 * time.Millisecond, 900 * time.Millisecond: 300 * time.Millisecond, 1500 * time.Millisecond: 100 * time.Millisecond, 3 * time.Second: 0,
	} {
		if got := s.Since(at.Add(after)); got != want {
			t.Errorf("since %s: %s, want %s", after, got, want)
		}
		if got := s.Allow(time.Second, at.Add(after)); got != time.Second+3*want {
			t.Errorf("limit since %s: %s", after, got)
		}
	}
}
