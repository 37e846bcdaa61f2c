// Package mem is a store in memory that behaves as etcd does where it matters for leases: one linear history of revisions,
// transactions with conditions, leases that run out, compaction, a restored backup. Tests run hundreds of hosts on it.
//
// Floor 3, edges: the fake of internal/store/etcd.
package mem

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// ErrCompacted says that the changes after a revision are not known any more.
var ErrCompacted = errors.New("required revision has been compacted")

// ErrDown is what everything answers while the store is down.
var ErrDown = errors.New("the store is down")

// Store is the shared map. It is safe for concurrent use.
type Store struct {
	mu        sync.Mutex
	now       func() time.Time
	rev       int64
	cluster   uint64
	kvs       map[string]claim.Entry
	leases    map[int64]grant
	lastLease int64
	history   []claim.Batch
	compacted int64
	changed   chan struct{} // closed and replaced at every change
	down      bool
	silent    bool
}

type grant struct {
	ttl    time.Duration
	expiry time.Time
}

// New returns an empty store with the given clock.
func New(now func() time.Time) *Store {
	return &Store{
		now: now, rev: 1, cluster: 1, kvs: map[string]claim.Entry{}, leases: map[int64]grant{}, changed: make(chan struct{}),
	}
}

// lock takes the mutex and lets run out what is due.
func (s *Store) lock() func() {
	s.mu.Lock()
	now := s.now()
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if !now.Before(s.leases[id].expiry) {
			s.drop(id)
		}
	}
	return s.mu.Unlock
}

// drop ends an etcd lease and deletes its keys, at one revision.
func (s *Store) drop(id int64) {
	delete(s.leases, id)
	var changes []claim.Change
	for _, key := range slices.Sorted(maps.Keys(s.kvs)) {
		if s.kvs[key].Lease == id {
			changes = append(changes, claim.Change{Entry: claim.Entry{Key: key}, Deleted: true})
		}
	}
	s.commit(changes)
}

// commit makes the changes the next revision.
func (s *Store) commit(changes []claim.Change) {
	if len(changes) == 0 {
		return
	}
	s.rev++
	for i := range changes {
		c := &changes[i]
		c.Modified = s.rev
		if c.Deleted {
			delete(s.kvs, c.Key)
			continue
		}
		c.Created = s.rev
		if old, ok := s.kvs[c.Key]; ok {
			c.Created = old.Created
		}
		s.kvs[c.Key] = c.Entry
	}
	s.history = append(s.history, claim.Batch{Changes: changes, Revision: s.rev})
	s.wake()
}

func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Snapshot returns everything at the present revision.
func (s *Store) Snapshot() claim.Snapshot {
	defer s.lock()()
	out := claim.Snapshot{Revision: s.rev, Cluster: s.cluster}
	for _, key := range slices.Sorted(maps.Keys(s.kvs)) {
		out.Entries = append(out.Entries, s.kvs[key])
	}
	return out
}

// Since returns the changes after a revision. A revision the store has not reached yet has none, as in etcd.
func (s *Store) Since(rev int64) ([]claim.Batch, error) {
	defer s.lock()()
	return s.since(rev)
}

func (s *Store) since(rev int64) ([]claim.Batch, error) {
	if rev < s.compacted {
		return nil, ErrCompacted
	}
	i, _ := slices.BinarySearchFunc(s.history, rev+1, func(b claim.Batch, r int64) int { return int(b.Revision - r) })
	return slices.Clone(s.history[i:]), nil
}

// Put writes a key as a foreign client would; ttl 0 means no lease.
func (s *Store) Put(key, value string, ttl time.Duration) {
	defer s.lock()()
	s.commit([]claim.Change{{Entry: claim.Entry{Key: key, Value: []byte(value), Lease: s.grant(ttl)}}})
}

func (s *Store) grant(ttl time.Duration) int64 {
	if ttl == 0 {
		return 0
	}
	s.lastLease++
	s.leases[s.lastLease] = grant{ttl: ttl, expiry: s.now().Add(ttl)}
	return s.lastLease
}

// Grant makes an etcd lease, as a client does before it sends a claim.
func (s *Store) Grant(ttl time.Duration) int64 {
	defer s.lock()()
	return s.grant(ttl)
}

// Delete removes a key as a foreign client would.
func (s *Store) Delete(key string) {
	defer s.lock()()
	if _, ok := s.kvs[key]; ok {
		s.commit([]claim.Change{{Entry: claim.Entry{Key: key}, Deleted: true}})
	}
}

// Compact forgets the history.
func (s *Store) Compact() {
	defer s.lock()()
	s.compacted, s.history = s.rev, nil
}

// Backup is the state of a store at one moment.
type Backup struct {
	rev    int64
	kvs    map[string]claim.Entry
	leases map[int64]grant
}

// Backup saves the state.
func (s *Store) Backup() Backup {
	defer s.lock()()
	return Backup{rev: s.rev, kvs: maps.Clone(s.kvs), leases: maps.Clone(s.leases)}
}

// Restore puts an earlier state back, as a new cluster: leases get their full time again, history begins anew.
func (s *Store) Restore(b Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev, s.kvs, s.leases = b.rev, maps.Clone(b.kvs), map[int64]grant{}
	for id, g := range b.leases {
		s.leases[id] = grant{ttl: g.ttl, expiry: s.now().Add(g.ttl)}
	}
	s.cluster++
	s.compacted, s.history = s.rev, nil
	s.wake()
}

// Exec carries out an action of a host's lease life.
func (s *Store) Exec(a claim.Action) claim.Outcome {
	defer s.lock()()
	o := claim.Outcome{Sent: s.now()}
	switch a.Verb {
	case claim.Claim, claim.TakeOver, claim.Update:
		s.put(a, &o)
	case claim.Extend:
		g, ok := s.leases[a.EtcdLease]
		if !ok {
			o.Result = claim.NoLease
			break
		}
		s.leases[a.EtcdLease] = grant{ttl: g.ttl, expiry: s.now().Add(g.ttl)}
		o.TTL = int64(g.ttl / time.Second)
	case claim.Revoke:
		if _, ok := s.leases[a.EtcdLease]; !ok {
			o.Result = claim.NoLease
			break
		}
		s.drop(a.EtcdLease)
	}
	if o.Result != claim.NoLease {
		o.Revision = s.rev
	}
	return o
}

func (s *Store) put(a claim.Action, o *claim.Outcome) {
	value, err := lease.Marshal(a.Lease)
	if err != nil {
		o.Result, o.Err = claim.Refused, err
		return
	}
	id := a.EtcdLease
	if id == 0 && a.Verb != claim.Update && !a.Permanent {
		id = s.grant(claim.TTL)
	}
	if a.Verb != claim.Update {
		o.EtcdLease = id
	}
	if _, ok := s.leases[id]; id != 0 && !ok {
		o.Result = claim.NoLease
		return
	}
	if !s.holds(a) {
		o.Result = claim.Conflict
		return
	}
	var changes []claim.Change
	for _, r := range a.Delete {
		changes = append(changes, claim.Change{Entry: claim.Entry{Key: claim.Subnets + r.Key}, Deleted: true})
	}
	s.commit(append(changes, claim.Change{Entry: claim.Entry{Key: claim.Subnets + a.Key, Value: value, Lease: id}}))
}

// holds says whether the conditions of the transaction are true.
func (s *Store) holds(a claim.Action) bool {
	if s.kvs[claim.Subnets+a.Key].Modified != a.Modified {
		return false
	}
	for _, r := range a.Delete {
		if s.kvs[claim.Subnets+r.Key].Modified != r.Modified {
			return false
		}
	}
	if a.Verb != claim.Claim {
		return true
	}
	if s.kvs[claim.ConfigKey].Modified != a.ConfigRevision {
		return false
	}
	for key, e := range s.kvs {
		if strings.HasPrefix(key, claim.Subnets+a.Guard) && e.Created > a.Revision {
			return false
		}
	}
	return true
}
