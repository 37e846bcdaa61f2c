package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/lease/claim"
)

// publish makes what is known the status, and says so when it is different from the last.
func (r *run) publish() {
	if !r.dirty && (!r.touched || r.publishDelta()) {
		return
	}
	r.dirty, r.touched = false, false
	r.mu.Lock()
	avoid := r.want.Avoid
	r.mu.Unlock()
	peers, refused := r.view.Peers(r.state.Own, avoid)
	r.report(refused)
	s := Status{
		Phase: r.state.Phase, Own: r.state.Own, Permanent: r.state.Permanent, Peers: peers, Refused: refused,
		Config: r.view.Config, HasConfig: r.view.HasConfig, Revision: r.view.Revision, Problem: r.trouble(),
		state: r.state,
	}
	r.replace(s)
}

// replace makes s the status and tells those who want to know.
func (r *run) replace(s Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle()
	old := r.status
	s.Since = since(s, old)
	samePeers := slices.Equal(old.Peers, s.Peers)
	if samePeers {
		s.Peers = old.Peers // one copy in memory is enough
	}
	if !samePeers || r.journal.Version() == 0 {
		r.journal.Reset()
	}
	same := sameButPeers(old, s)
	r.status = s
	if !same {
		for _, ch := range r.quiet {
			poke(ch)
		}
	}
	if !same || !samePeers {
		for _, ch := range r.subs {
			poke(ch)
		}
	}
}

// since is when the problem of now began.
func since(now, before Status) time.Time {
	switch {
	case now.Problem == "":
		return time.Time{}
	case before.Problem == "":
		return time.Now()
	}
	return before.Since
}

func sameButPeers(a, b Status) bool {
	return sameOwn(a.Own, b.Own) && a.Phase == b.Phase && a.Config == b.Config && a.HasConfig == b.HasConfig &&
		slices.Equal(a.Refused, b.Refused) && a.Problem == b.Problem
}

// publishDelta makes known how the peers changed, at the cost of what changed. It reports whether that is all there is to say.
func (r *run) publishDelta() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.journal.Version() == 0 || r.status.Problem != r.trouble() || r.status.Phase != r.state.Phase || !sameOwn(r.status.Own, r.state.Own) {
		return false
	}
	d, ok := r.view.Delta(r.state.Own, r.want.Avoid)
	if !ok {
		return false
	}
	r.touched = false
	r.status.Revision = r.view.Revision
	if len(d.Gone)+len(d.Fresh) == 0 {
		return true
	}
	r.pending = append(r.pending, d)
	if len(r.pending) >= journalLimit {
		r.settle()
	}
	r.journal.Add(d)
	for _, ch := range r.subs {
		poke(ch)
	}
	return true
}

// trouble is the worst of what is wrong.
func (r *run) trouble() string {
	if r.silence != "" || r.failed != "" {
		return cmp.Or(r.silence, r.failed)
	}
	if t := r.state.Trouble(); t != "" || r.view.ConfigErr == "" {
		return t
	}
	return fmt.Sprintf("the network config in the store is not taken up, the last good one stays: %s", r.view.ConfigErr)
}

// sameOwn compares but for the time, which moves with every renewal and changes nothing in the kernel.
func sameOwn(a, b api.Lease) bool {
	a.Expiry = b.Expiry
	return a == b
}

// report logs what is new among the refused leases and the config's faults, once for each value.
func (r *run) report(refused []claim.Refusal) {
	present := make(map[string]string, len(refused))
	for _, x := range refused {
		mark := x.Value + "\x00" + x.Reason
		present[x.Key] = mark
		if r.reported[x.Key] != mark {
			r.log.Warn("lease refused: "+x.Reason, "key", x.Key, "value", x.Value)
		}
	}
	r.reported = present
	config := r.view.ConfigErr
	if config == "" {
		config = strings.Join(r.view.ConfigWarnings, "; ")
	}
	if config != r.warned && config != "" {
		r.log.Warn("network config in the store", "problem", config)
	}
	r.warned = config
}
