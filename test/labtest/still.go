package labtest

import (
	"sync"
	"testing"
	"time"
)

// Slack is how many times as long as its limit says Eventually waits: a limit is for a machine with nothing else to do.
const Slack = 4

// Still knows how long the machine stood still: a test that judges times judges the machine along with weft, and the machine may be a virtual
// one that is held up for seconds.
type Still struct {
	mu     sync.Mutex
	pauses []pause
}

type pause struct {
	end  time.Time
	long time.Duration
}

// NewStill begins to watch, until the test ends.
func NewStill(t *testing.T) *Still {
	t.Helper()
	s := &Still{}
	end, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(end); <-ended })
	go func() {
		defer close(ended)
		s.watch(end)
	}()
	return s
}

// watch only waits; that it waits for longer than it asked for is the machine's doing.
func (s *Still) watch(end <-chan struct{}) {
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		now := time.Now()
		if late := now.Sub(last) - every; late > every {
			s.mu.Lock()
			s.pauses = append(s.pauses, pause{now, late})
			s.mu.Unlock()
		}
		last = now
	}
}

// Since is the longest time that the machine stood still since a moment.
func (s *Still) Since(begun time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var longest time.Duration
	for _, p := range s.pauses {
		if p.end.After(begun) {
			longest = max(longest, p.long)
		}
	}
	return longest
}

// Allow is a limit for what took place since a moment: the limit on a machine at rest, and three times what the machine stood still.
func (s *Still) Allow(limit time.Duration, begun time.Time) time.Duration {
	return limit + 3*s.Since(begun)
}
