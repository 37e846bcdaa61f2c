package labtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
)

const (
	starvedEvery = 50 * time.Millisecond
	starvedLeast = 5 * starvedEvery // shorter waits are any busy machine's, and queues are made for them
)

// Starved knows how long agents stood ready to run while the machine ran something else. Still asks a thread of the test's own, which the
// kernel may give a processor (sched(7): each session has a share) while the agents get none for seconds.
type Starved struct {
	stop  chan struct{}
	total chan time.Duration
}

// Starve begins to watch the agents of all nodes.
func (c *Cluster) Starve() *Starved {
	c.T.Helper()
	var all []string
	for _, h := range c.Nodes {
		first, err := c.PID(c.T.Context(), h)
		if err != nil {
			c.T.Fatal(err)
		}
		programs, err := c.Programs(c.T.Context(), h)
		if err != nil {
			c.T.Fatal(err)
		}
		for _, p := range programs {
			if p.Name == lab.Agent && p.Running {
				all = append(all, fmt.Sprintf("/proc/%d/root/proc/%d/task", first, p.PID))
			}
		}
	}
	return watchStarved(c.T, all)
}

func watchStarved(t *testing.T, programs []string) *Starved {
	t.Helper()
	s := &Starved{make(chan struct{}), make(chan time.Duration, 1)}
	go func() {
		tick := time.NewTicker(starvedEvery)
		defer tick.Stop()
		meters := make([]starvedMeter, len(programs))
		for {
			for i, tasks := range programs {
				meters[i].look(threadsOf(tasks), time.Now())
			}
			select {
			case <-tick.C:
				continue
			case <-t.Context().Done(): // a test that failed early does not ask
				return
			case <-s.stop:
			}
			var total time.Duration
			for i := range meters {
				total += meters[i].total
			}
			s.total <- total
			return
		}
	}()
	return s
}

// Total ends the watch. It is the time that agents waited for a processor in one piece of a quarter of a second or more, over all of them.
func (s *Starved) Total() time.Duration {
	close(s.stop)
	return <-s.total
}

// threadsOf reads what each thread of a program does: "R" and, as proc(5) and sched-stats.rst of the kernel have it, how long it ran and how
// many times it began to. A program that is gone has none.
func threadsOf(tasks string) map[string]string {
	all := map[string]string{}
	dirs, _ := filepath.Glob(tasks + "/*")
	for _, d := range dirs {
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		sched, err := os.ReadFile(d + "/schedstat")
		if f := strings.Fields(string(sched)); err == nil && len(f) == 3 && strings.HasPrefix(after, "R") {
			all[filepath.Base(d)] = "ran " + f[0] + " began " + f[2]
		}
	}
	return all
}

// starvedMeter adds up how long some thread of one program was ready and did not run.
type starvedMeter struct {
	ready map[string]string // threads that are ready to run: how long they ran, how often
	last  time.Time
	piece time.Duration // of the wait under way
	total time.Duration // of the pieces that count
}

// look takes what threadsOf found at a moment.
func (m *starvedMeter) look(ready map[string]string, now time.Time) {
	waits := false
	for tid, ran := range ready {
		waits = waits || m.ready[tid] == ran
	}
	step := now.Sub(m.last)
	switch m.piece += step; {
	case !waits:
		m.piece = 0
	case m.piece-step >= starvedLeast:
		m.total += step
	case m.piece >= starvedLeast:
		m.total += m.piece
	}
	m.ready, m.last = ready, now
}
