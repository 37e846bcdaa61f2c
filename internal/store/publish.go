package store

import (
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/lease/claim"
)

// publish makes what is known the status, and says so when it is different from the last.
func (r *run) publish() {
	if !r.dirty {
		return
	}
	r.dirty = false
	r.mu.Lock()
	avoid := r.want.Avoid
	r.mu.Unlock()
	peers, refused := r.view.Peers(r.state.Own, avoid)
	r.report(refused)
	s := Status{
		Phase: r.state.Phase, Own: r.state.Own, Permanent: r.state.Permanent, Peers: peers, Refused: refused,
		Config: r.view.Config, HasConfig: r.view.HasConfig, Revision: r.view.Revision, Problem: r.problem,
	}
	if r.silence != "" {
		s.Problem = r.silence
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.status
	if slices.Equal(old.Peers, s.Peers) {
		s.Peers = old.Peers // one copy in memory is enough
	}
	same := sameOwn(old.Own, s.Own) && old.Phase == s.Phase && old.Config == s.Config && old.HasConfig == s.HasConfig &&
		slices.Equal(old.Peers, s.Peers) && slices.Equal(old.Refused, s.Refused) && old.Problem == s.Problem
	r.status = s
	if same {
		return
	}
	for _, ch := range r.subs {
		poke(ch)
	}
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
