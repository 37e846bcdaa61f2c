package relay

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Connection is one live TCP connection or UDP session.
type Connection struct {
	Service  string `json:"service"`  // "namespace/name:port"
	Protocol string `json:"protocol"` // "TCP" or "UDP"
	// Client is who connected, Original where to: the service's address, if the connection was redirected. It's known for TCP only.
	// Local is the relay's end.
	Client   netip.AddrPort `json:"client"`
	Original netip.AddrPort `json:"original"`
	Local    netip.AddrPort `json:"local"`
	// Upstream is the relay's end of the connection to Endpoint.
	Upstream netip.AddrPort `json:"upstream"`
	Endpoint netip.AddrPort `json:"endpoint"`
	Since    time.Time      `json:"since"`
}

// session is what the table holds.
type session interface {
	describe() Connection
	// abort ends the session from outside.
	abort()
}

// table is the live sessions.
type table struct {
	mu   sync.Mutex
	live map[session]struct{}
	done sync.WaitGroup
}

func (t *table) add(s session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == nil {
		t.live = map[session]struct{}{}
	}
	t.live[s] = struct{}{}
}

func (t *table) remove(s session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, s)
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

func (t *table) all() []session {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]session, 0, len(t.live))
	for s := range t.live {
		out = append(out, s)
	}
	return out
}

func (t *table) closeAll() {
	for _, s := range t.all() {
		s.abort()
	}
}

// wait returns when every session's goroutines have ended.
func (t *table) wait() { t.done.Wait() }

// Connections returns the live connections and sessions, oldest first.
func (r *Relay) Connections() []Connection {
	all := r.conns.all()
	out := make([]Connection, len(all))
	for i, s := range all {
		out[i] = s.describe()
	}
	slices.SortFunc(out, func(a, b Connection) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Client.Compare(b.Client))
	})
	return out
}
