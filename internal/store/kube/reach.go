package kube

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// reach knows which kinds of objects the API does not give, and logs once when it goes away and once when it is back, whatever number of
// watches notice.
type reach struct {
	host string
	log  *slog.Logger

	mu     sync.Mutex
	failed map[string]error // by resource, since the last time that it was read
	since  time.Time        // the first of them
}

func (r *reach) note(resource string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.failed)
	if err != nil {
		if r.failed == nil {
			r.failed = map[string]error{}
		}
		r.failed[resource] = err
	} else {
		delete(r.failed, resource)
	}
	switch now := len(r.failed); {
	case before == 0 && now > 0:
		r.since = time.Now()
		r.log.Warn("Kubernetes API does not answer; last known state stays", "server", r.host, "what", resource, "err", err)
	case before > 0 && now == 0:
		r.log.Info("Kubernetes API answers again", "server", r.host)
	}
}

// Away says which kinds of objects can't be read, since when and why, in one line; "" when all can. A nil Store has none.
func (s *Store) Away() string {
	if s == nil {
		return ""
	}
	r := &s.reach
	r.mu.Lock()
	defer r.mu.Unlock()
	kinds := slices.Sorted(maps.Keys(r.failed))
	if len(kinds) == 0 {
		return ""
	}
	return fmt.Sprintf("Kubernetes API: %s can't be read since %s: %v; what was last known stays in force",
		strings.Join(kinds, ", "), r.since.Format(time.DateTime), r.failed[kinds[0]])
}
