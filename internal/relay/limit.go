package relay

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// spareFiles are the file descriptors left for everything else in the process.
const spareFiles = 256

// counters are what the relay counts.
type counters struct {
	accepted, refused, retries, limited, datagrams, lost atomic.Int64
}

// Stats is what the relay did since it began.
type Stats struct {
	Accepted  int64 `json:"accepted"`  // TCP connections accepted and UDP sessions begun
	Refused   int64 `json:"refused"`   // of those, closed because no endpoint took them
	Retries   int64 `json:"retries"`   // endpoints that refused or didn't answer, so that another was tried
	Limited   int64 `json:"limited"`   // times a connection had to wait, or a datagram was dropped, for lack of file descriptors
	Datagrams int64 `json:"datagrams"` // UDP datagrams passed on, both ways
	Lost      int64 `json:"lost"`      // UDP datagrams that could not be passed on
	Active    int   `json:"active"`    // TCP connections and UDP sessions now
	Files     int   `json:"files"`     // file descriptors used by these and by their pipes
	MaxFiles  int   `json:"maxFiles"`  // file descriptors they may use
}

// Stats returns the counters.
func (r *Relay) Stats() Stats {
	c := &r.stats
	s := Stats{
		Accepted: c.accepted.Load(), Refused: c.refused.Load(), Retries: c.retries.Load(), Limited: c.limited.Load(),
		Datagrams: c.datagrams.Load(), Lost: c.lost.Load(), Active: r.conns.len(),
	}
	s.Files, s.MaxFiles = r.limit.usage()
	return s
}

// limit counts file descriptors and lets sessions wait until there are enough.
type limit struct {
	log   *slog.Logger
	stats *counters
	total int // 0: RLIMIT_NOFILE

	mu       sync.Mutex
	max      int // what sessions may use
	used     int
	waiting  []chan struct{}
	reported bool
}

func newLimit(total int, log *slog.Logger, stats *counters) *limit {
	l := &limit{log: log, stats: stats, total: total}
	l.reserve(0)
	return l
}

// reserve sets aside the descriptors of the listeners.
func (l *limit) reserve(listeners int) {
	total := l.total
	if total == 0 {
		total = 1024
		var r unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err == nil {
			total = int(min(r.Cur, 1<<30))
		}
		total -= spareFiles
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = max(total-listeners, 2)
	l.wake()
}

// acquire takes n descriptors, waiting for them until done is closed.
func (l *limit) acquire(n int, done <-chan struct{}) bool {
	for {
		l.mu.Lock()
		if l.used+n <= l.max {
			l.used += n
			l.mu.Unlock()
			return true
		}
		l.report()
		free := make(chan struct{})
		l.waiting = append(l.waiting, free)
		l.mu.Unlock()
		select {
		case <-free:
		case <-done:
			return false
		}
	}
}

// try takes n descriptors if there are.
func (l *limit) try(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used+n > l.max {
		l.report()
		return false
	}
	l.used += n
	return true
}

// spare takes n descriptors for what can be done without, if a tenth is left for what can't.
func (l *limit) spare(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used+n > l.max-l.max/10 {
		return false
	}
	l.used += n
	return true
}

// release gives n descriptors back.
func (l *limit) release(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used -= n
	if l.used < l.max/10*9 {
		l.reported = false
	}
	l.wake()
}

// exhausted notes that the kernel refused a descriptor although the relay's own count allowed it.
func (l *limit) exhausted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report()
}

// report counts, and logs the first time since there were enough.
func (l *limit) report() {
	l.stats.limited.Add(1)
	if !l.reported {
		l.reported = true
		l.log.Warn("relay is out of file descriptors: new connections wait; raise the limit (ulimit -n, LimitNOFILE=)",
			"used", l.used, "limit", l.max)
	}
}

func (l *limit) wake() {
	for _, w := range l.waiting {
		close(w)
	}
	l.waiting = nil
}

func (l *limit) usage() (used, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used, l.max
}

// outOfFiles lists the errors that mean no more descriptors, memory or ports here, whatever endpoint is tried.
var outOfFiles = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}
