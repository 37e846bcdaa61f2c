package labtest

import (
	"testing"
	"time"
)

// TestStarved: a thread that is ready, and does not run, counts; one that runs, and one that waits shortly, does not.
func TestStarved(t *testing.T) {
	at := time.Unix(1000, 0)
	var m starvedMeter
	look := func(ms int, ready map[string]string) {
		t.Helper()
		for range ms / 50 {
			at = at.Add(starvedEvery)
			m.look(ready, at)
		}
	}
	expect := func(what string, want time.Duration) {
		t.Helper()
		if m.total != want {
			t.Errorf("%s: %s, want %s", what, m.total, want)
		}
	}
	look(1000, nil)
	expect("all sleep", 0)
	look(200, map[string]string{"1": "ran 5 began 1"})
	expect("a short wait", 0)
	look(50, map[string]string{"1": "ran 6 began 2"})
	look(1000, nil)
	expect("then it ran", 0)
	look(250, map[string]string{"1": "ran 6 began 2", "2": "ran 9 began 9"})
	expect("not yet", 0)
	look(50, map[string]string{"1": "ran 6 began 2"})
	expect("it waits for a quarter of a second", 250*time.Millisecond)
	look(500, map[string]string{"1": "ran 6 began 2"})
	expect("and goes on waiting", 750*time.Millisecond)
	look(50, map[string]string{"1": "ran 7 began 3"})
	look(500, nil)
	expect("what ran does not wait", 750*time.Millisecond)
}
