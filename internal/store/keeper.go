// Package store keeps a host's share of the network: one goroutine owns the life of its lease and follows those of the
// others, on top of a store that internal/store/etcd reaches over the network and internal/store/mem only plays.
//
// Floor 3, edges.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// KV is the store as the Keeper sees it. All keys are below its prefix.
type KV interface {
	// List returns everything at one revision.
	List(ctx context.Context) (claim.Snapshot, error)
	// Watch sends the changes after a revision until it cannot any more; then it returns why.
	Watch(ctx context.Context, revision int64, to func(claim.Batch)) error
	// Do carries out one action. It comes back in bounded time.
	Do(ctx context.Context, a claim.Action) claim.Outcome
	// Check asks for the present revision and the identity of the store, in bounded time.
	Check(ctx context.Context) (revision int64, cluster uint64, err error)
}

// Keeper owns a host's lease: it acquires it, renews it, acquires it again when it is lost, and follows the leases of the
// others. All its methods may be called from any goroutine.
type Keeper struct {
	// CheckEvery is how often the store is asked whether it still is the one being watched; 10 s. Set it before Run.
	CheckEvery time.Duration

	kv  KV
	log *slog.Logger

	mu      sync.Mutex
	want    claim.Want
	status  Status
	pending []claim.Delta // changes that are not in status.Peers yet
	journal Journal       // of the peers
	subs    []chan struct{}
	quiet   []chan struct{} // of those who do not care about peers

	wanted chan struct{} // the want changed
}

// Status is what the Keeper knows at one moment. Its slices are not changed afterwards.
type Status struct {
	Phase     claim.Phase
	Own       api.Lease // zero before the first lease; kept while it is lost
	Permanent bool      // a reservation
	Peers     []api.Lease
	Refused   []claim.Refusal // leases of others that are not acted on
	Config    lease.Config    // the last good one
	HasConfig bool
	Revision  int64     // of the store
	Problem   string    // what stands between the host and its lease, or the store's silence; "" when all is well
	Since     time.Time // of the problem; it may have changed its words since

	state claim.State
}

// Believes says whether the host may give addresses of its subnet to new pods: as far as it knows nobody else can hold it.
func (s Status) Believes(now time.Time) bool { return s.state.Believes(now) }

// NewKeeper returns a Keeper that has not begun; Run begins.
func NewKeeper(kv KV, want claim.Want, log *slog.Logger) *Keeper {
	k := &Keeper{kv: kv, log: log, CheckEvery: 10 * time.Second, want: want, wanted: make(chan struct{}, 1)}
	k.subs = []chan struct{}{make(chan struct{}, 1)}
	return k
}

// Changed receives when the status has changed; many changes may be one receive. It is one channel for one consumer; more of
// them call Subscribe.
func (k *Keeper) Changed() <-chan struct{} { return k.subs[0] }

// Subscribe returns a channel like Changed of the caller's own.
func (k *Keeper) Subscribe() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch := make(chan struct{}, 1)
	k.subs = append(k.subs, ch)
	return ch
}

// SubscribeOwn returns a channel like Changed that does not tell of the leases of others.
func (k *Keeper) SubscribeOwn() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch := make(chan struct{}, 1)
	k.quiet = append(k.quiet, ch)
	return ch
}

// Status returns everything known.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	return k.status
}

// settle brings status.Peers up to date: it is a new list for each change, so it is made only when somebody wants to see it.
func (k *Keeper) settle() {
	if len(k.pending) > 0 {
		k.status.Peers, k.pending = merge(k.status.Peers, k.pending), nil
	}
}

// Delta returns the peers' present version and how they changed since an earlier one that it returned. ok is false when that is not
// known: then Leases tells all, and what it returns is of the version returned or a later one.
func (k *Keeper) Delta(since uint64) (now uint64, d claim.Delta, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.journal.Since(since)
}

// Own returns the host's lease; ok is false before the first one.
func (k *Keeper) Own() (l api.Lease, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	own := k.status.Own
	return own, own.Subnet.IsValid() || own.SubnetV6.IsValid()
}

// Peers returns the leases of the other hosts that may be programmed, by address.
func (k *Keeper) Peers() []api.Lease { return k.Status().Peers }

// Leases returns all leases: the host's own first, when it has one, then its peers.
func (k *Keeper) Leases() []api.Lease {
	s := k.Status()
	out := make([]api.Lease, 0, len(s.Peers)+1)
	if own, ok := k.Own(); ok {
		out = append(out, own)
	}
	return append(out, s.Peers...)
}

// Change changes what the host asks for: its public address, its VTEP, its routes. The subnet stays.
func (k *Keeper) Change(edit func(*claim.Want)) {
	k.mu.Lock()
	edit(&k.want)
	k.mu.Unlock()
	poke(k.wanted)
}

// WaitOwn waits for the first lease. When ctx ends before, the error says what is missing.
func (k *Keeper) WaitOwn(ctx context.Context) (api.Lease, error) {
	changed := k.Subscribe()
	for {
		if own, ok := k.Own(); ok {
			return own, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if problem := k.Status().Problem; problem != "" {
				return api.Lease{}, fmt.Errorf("acquire a subnet: %s", problem)
			}
			return api.Lease{}, fmt.Errorf("acquire a subnet: %w", ctx.Err())
		}
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Run keeps the lease until ctx ends. The lease is left in the store: the host comes back to it.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	r := &run{
		Keeper: k, news: make(chan news, 64), answers: make(chan answer, 1), again: make(chan struct{}, 1),
		view: &claim.View{}, reported: map[string]string{}, dirty: true,
	}
	wg.Go(func() { r.feed(ctx) })
	for ctx.Err() == nil {
		wait := r.decide(ctx, &wg)
		r.publish()
		if !r.next(ctx, wait) {
			break
		}
	}
	return nil
}

// run is the Keeper's one goroutine's own data, but for the channels.
type run struct {
	*Keeper
	news    chan news
	answers chan answer
	again   chan struct{} // ask the feed for a new snapshot

	view     *claim.View
	state    claim.State
	doing    bool
	dirty    bool              // everything has to be looked at again
	touched  bool              // only leases changed
	failed   string            // why the last action was not carried out
	silence  string            // why the store does not answer
	reported map[string]string // key to the value already complained about
	warned   string
}

// news is one word of the feed.
type news struct {
	snapshot *claim.Snapshot
	batch    claim.Batch
	silence  *string // nil: nothing about it
}

type answer struct {
	action  claim.Action
	outcome claim.Outcome
}

// decide starts the next action, unless one is under way, and says how long it can be waited.
func (r *run) decide(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	now := time.Now()
	forget := r.view.Forget(now)
	if r.doing {
		return until(now, forget)
	}
	r.mu.Lock()
	want := r.want
	r.mu.Unlock()
	state, a, notes := r.state.Next(now, r.view, want, rand.IntN)
	if state.Phase != r.state.Phase || state.Trouble() != r.state.Trouble() {
		r.dirty = true
	}
	r.state = state
	for _, n := range notes {
		r.log.Warn(n, "phase", state.Phase.String())
	}
	if a.Verb == claim.Wait {
		return min(until(now, a.Until), until(now, forget))
	}
	r.doing = true
	r.log.Debug("lease", "do", a.Verb.String(), "key", a.Key, "why", a.Why)
	wg.Go(func() {
		o := r.kv.Do(ctx, a)
		select {
		case r.answers <- answer{a, o}:
		case <-ctx.Done():
		}
	})
	return until(now, forget)
}

// until is the time left to t; the zero t is far.
func until(now, t time.Time) time.Duration {
	if t.IsZero() {
		return time.Hour
	}
	return max(0, t.Sub(now))
}

// next waits for something to happen and takes in all that has.
func (r *run) next(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case n := <-r.news:
		r.hear(n)
		for more := true; more; {
			select {
			case n := <-r.news:
				r.hear(n)
			default:
				more = false
			}
		}
	case a := <-r.answers:
		r.done(a)
	case <-r.wanted:
		r.dirty = true
	case <-timer.C:
		r.dirty = true
	}
	return true
}

func (r *run) hear(n news) {
	switch {
	case n.silence != nil:
		if *n.silence != "" && *n.silence != r.silence {
			r.log.Warn(*n.silence)
		} else if *n.silence == "" && r.silence != "" {
			r.log.Info("the store answers again")
		}
		r.silence = *n.silence
	case n.snapshot != nil:
		epoch := r.view.Epoch
		r.view.Reset(*n.snapshot, time.Now())
		if r.view.Epoch != epoch {
			r.log.Warn("the store has another history now (restored, or its data lost): every host puts its lease back",
				"revision", n.snapshot.Revision)
		}
	default:
		r.view.Apply(n.batch)
		r.touched = true
		return
	}
	r.dirty = true
}

// done takes the outcome of the action that was under way.
func (r *run) done(a answer) {
	r.doing, r.dirty = false, true
	r.state = r.state.Done(time.Now(), a.action, a.outcome)
	switch a.outcome.Result {
	case claim.Done:
		if v := a.action.Verb; v == claim.Claim || v == claim.TakeOver {
			r.log.Info("subnet leased", "subnet", a.action.Key, "how", a.action.Verb.String(), "why", a.action.Why,
				"reserved", a.action.Permanent)
		}
		r.failed = ""
	case claim.Conflict:
		r.log.Debug("somebody else was faster, choosing again", "key", a.action.Key)
	case claim.NoLease, claim.Unknown, claim.Refused:
		// The feed finds out what the store looks like now.
		poke(r.again)
		if a.outcome.Err != nil && !errors.Is(a.outcome.Err, context.Canceled) {
			text := fmt.Sprintf("%s %s: %v", a.action.Verb, a.action.Key, a.outcome.Err)
			if text != r.failed {
				r.log.Warn("lease: will be tried again", "err", text)
			}
			r.failed = text
		}
	}
}
