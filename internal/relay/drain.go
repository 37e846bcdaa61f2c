package relay

import (
	"cmp"
	"time"
)

// A listener drains when packets are no longer sent to its port, while some may be under way and sessions live.

const (
	// lingerTCP is how long a draining TCP listener still accepts: a SYN that was sent before may be repeated, and goes where the first went.
	lingerTCP = 8 * time.Second
	// lingerUDP is how long a draining UDP listener without sessions stays: its port is no longer told, and whoever remembers where
	// flows lead forgets it meanwhile.
	lingerUDP = 4 * time.Second
)

// linger is how long draining listeners stay, 0: as long as the constants say.
type linger struct{ tcp, udp time.Duration }

// drained is the state of a draining listener; its zero value is one that does not drain.
type drained struct {
	since time.Time // when it began, zero: it does not drain
	idle  time.Time // since when there was no session, zero: there is one
}

// drains brings a listener nearer to its end and reports whether it is still needed.
func (l *listener) drains(now time.Time, stay linger) bool {
	if l.drain.since.IsZero() {
		l.drain.since = now
	}
	if l.sessions == nil {
		return now.Sub(l.drain.since) < cmp.Or(stay.tcp, lingerTCP)
	}
	if l.sessions() > 0 {
		l.drain.idle = time.Time{}
		return true
	}
	if l.drain.idle.IsZero() {
		l.drain.idle = now
	}
	return now.Sub(l.drain.idle) < cmp.Or(stay.udp, lingerUDP)
}

// Draining returns how many listeners are open only for what there is of sessions.
func (r *Relay) Draining() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, l := range r.listeners {
		if !l.drain.since.IsZero() {
			n++
		}
	}
	return n
}
