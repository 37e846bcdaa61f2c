package claim

import (
	"net/netip"
	"time"

	"weft/internal/api"
)

// Phase is where a host's own lease stands.
type Phase uint8

// The phases. In Lost the host keeps forwarding what it had, while it acquires the same subnet again.
const (
	Seeking Phase = iota // no lease yet
	Held                 // the key is ours
	Lost                 // had one; the store does not know it any more
)

// String is the phase as status output and logs show it.
func (p Phase) String() string {
	switch p {
	case Held:
		return "held"
	case Lost:
		return "lost"
	}
	return "seeking"
}

// Times of the lease's life.
const (
	TTL           = 24 * time.Hour         // of the etcd lease, as flannel's
	Renew         = time.Hour              // after this the etcd lease is extended again: 23 hours of outage are survived
	retryFirst    = 250 * time.Millisecond // after an answer that did not come
	retryMax      = 30 * time.Second
	conflictFirst = 5 * time.Millisecond // after somebody else was faster
	conflictMax   = time.Second
	fightFirst    = time.Second // before the key is written again after somebody else wrote it
	fightMax      = 5 * time.Minute
	fightForget   = 15 * time.Minute // of peace, and the next one is the first again
)

// Want is what the host asks for. It may change at any time.
type Want struct {
	Self                 api.Lease    // what the others shall read; Subnet and SubnetV6 are asked for, zero: any
	Previous, PreviousV6 netip.Prefix // from subnet.env; counts until a lease is held
	Avoid                []HostRoute  // of the host, as in Request
}

// State is the life of the host's own lease. The zero State is a host that has just started. Steps return a new State, so
// an old one may be kept.
type State struct {
	Phase     Phase
	Own       api.Lease // from the first lease on; the zero Lease before
	Permanent bool      // a reservation: it does not run out and is not renewed
	EtcdLease int64     // what the key lives by
	Expiry    time.Time // before this the store cannot have dropped the key; zero when Permanent

	key               string
	created, modified int64
	renewAt           time.Time

	orphans    []int64 // etcd leases of claims whose outcome is unknown: revoked before the next one
	epoch      int
	after      int64 // decide only on a view that has this revision
	notBefore  time.Time
	retries    int
	fights     int
	fightAt    time.Time
	fightUntil time.Time
	told       string
	trouble    string // the last note, until nothing is wrong any more
}

// Trouble says what stands between the host and its lease, "" when nothing does.
func (s State) Trouble() string { return s.trouble }

// doubt is how long before its expiry a lease is no longer believed in: a clock that is up to 4 % too slow is allowed for.
const doubt = TTL / 24

// Believes says whether the host may act as the holder of its lease, in that it gives addresses of it to new pods: as far as it knows
// nobody else can have the subnet. What it has given out it goes on forwarding either way.
func (s State) Believes(now time.Time) bool {
	return s.Phase == Held && (s.Permanent || now.Before(s.Expiry.Add(-doubt)))
}

// Verb is what an Action does.
type Verb uint8

// The verbs. All but Wait are carried out by the store's client and answered with an Outcome.
const (
	Wait     Verb = iota // until the view, the want or the time changes
	Claim                // create the key with a new etcd lease
	TakeOver             // put a key that is ours with a new etcd lease; a reservation without one
	Update               // put our key again with its etcd lease
	Extend               // extend the etcd lease
	Revoke               // revoke an etcd lease, with whatever key it has
)

// String is the verb in logs.
func (v Verb) String() string {
	return [...]string{"wait", "claim", "take over", "update", "extend", "revoke"}[v]
}

// Action is the next thing to do in the store.
type Action struct {
	Verb  Verb
	Until time.Time // Wait: at the latest, zero: no bound

	// Claim, TakeOver, Update: one transaction that fails when a condition does not hold.
	Key       string    // below "subnets/"
	Lease     api.Lease // the value
	Permanent bool      // put without an etcd lease
	Modified  int64     // TakeOver, Update: the key's last change was at this revision
	Created   int64     // TakeOver: and its creation at this one
	Delete    []Record  // deleted with it, each as last changed
	Why       string

	// Claim: the key does not exist, the config was last changed at ConfigRevision, and no key that begins with Guard
	// (below "subnets/") was created after Revision.
	ConfigRevision, Revision int64
	Guard                    string

	// EtcdLease is, for Extend and Revoke, which one; for Update what the key lives by, 0: nothing; for Claim and TakeOver
	// left to the client, which grants one first.
	EtcdLease int64
}

// Result says how an Action ended.
type Result uint8

// The results.
const (
	Done     Result = iota
	Conflict        // a condition did not hold, nothing was done
	NoLease         // the etcd lease does not exist
	Unknown         // no answer: done, not done, or yet to be done
	Refused         // the store will never do this (no permission, bad request)
)

// Outcome is the answer to an Action.
type Outcome struct {
	Result    Result
	Revision  int64     // Done of Claim, TakeOver, Update: the revision of the put
	EtcdLease int64     // granted for this action, 0: none
	TTL       int64     // Extend: seconds the store gave
	Sent      time.Time // when the action was sent: a TTL counts from here at the earliest
	Err       error     // Unknown, Refused: why
}
