package claim

import (
	"slices"
	"time"

	"weft/internal/api"
)

// Done takes the outcome of an action that Next asked for. At most one action is under way at a time.
func (s State) Done(now time.Time, a Action, o Outcome) State {
	s.orphans = slices.Clone(s.orphans)
	s = s.pace(now, a, o)
	switch a.Verb {
	case Claim:
		return s.claimed(a, o)
	case TakeOver:
		if o.Result == Conflict {
			s.orphan(o.EtcdLease)
		}
	case Revoke:
		if o.Result == Done || o.Result == NoLease {
			s.orphans = slices.DeleteFunc(s.orphans, func(id int64) bool { return id == a.EtcdLease })
			s.notBefore, s.retries = time.Time{}, 0
		}
	}
	if o.Result != Done {
		return s
	}
	switch a.Verb {
	case TakeOver:
		return s.hold(a, o)
	case Update:
		s.Own, s.modified = withExpiry(a.Lease, s.Expiry), o.Revision
	case Extend:
		return s.extended(o)
	}
	return s
}

// pace decides when to go on: at once after a success, and then with a view that has it; later each time otherwise.
func (s State) pace(now time.Time, a Action, o Outcome) State {
	first, most := retryFirst, retryMax
	switch o.Result {
	case Done:
		s.retries = 0
		if a.Verb == Claim || a.Verb == TakeOver || a.Verb == Update {
			s.after = o.Revision // the change of that revision is ours, so the view will see it
		}
		return s
	case Conflict:
		// The view learns in a moment what was in the way; deciding before that only conflicts again.
		first, most = conflictFirst, conflictMax
	}
	s.notBefore = now.Add(min(first<<min(s.retries, 16), most))
	s.retries++
	return s
}

// claimed answers a claim. When its outcome is not known, its etcd lease is revoked before anything else is claimed: that
// takes the key away if it was made, and makes it impossible if it is still on its way. So no host ever has two.
func (s State) claimed(a Action, o Outcome) State {
	if o.Result == Done {
		return s.hold(a, o)
	}
	s.orphan(o.EtcdLease)
	return s
}

func (s *State) orphan(id int64) {
	if id != 0 {
		s.orphans = append(s.orphans, id)
	}
}

// hold begins to hold what the action put.
func (s State) hold(a Action, o Outcome) State {
	s.Phase, s.key, s.EtcdLease, s.Permanent = Held, a.Key, o.EtcdLease, a.Permanent
	s.created, s.modified = o.Revision, o.Revision
	if a.Verb == TakeOver {
		s.created = a.Created
	}
	s.Expiry, s.renewAt = time.Time{}, time.Time{}
	if !a.Permanent {
		s.Expiry, s.renewAt = o.Sent.Add(TTL), o.Sent.Add(Renew)
	}
	s.Own = withExpiry(a.Lease, s.Expiry)
	s.told, s.trouble, s.fights = "", "", 0
	return s
}

func (s State) extended(o Outcome) State {
	ttl := time.Duration(o.TTL) * time.Second
	s.Expiry = o.Sent.Add(ttl)
	s.renewAt = o.Sent.Add(min(Renew, ttl/2))
	s.Own.Expiry = s.Expiry
	s.told = ""
	return s
}

func withExpiry(l api.Lease, t time.Time) api.Lease {
	l.Expiry = t
	return l
}
