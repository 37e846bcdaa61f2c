package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"weft/internal/lease/claim"
)

// Back-off of the feed after a failure.
const (
	feedFirst = 100 * time.Millisecond
	feedMax   = 2 * time.Second
	peace     = time.Minute // a watch that lived this long was a good one
)

// errAgain ends a watch because a new snapshot is needed.
var errAgain = errors.New("a new snapshot is needed")

// feed brings snapshots and changes until ctx ends. Any failure leads to a new snapshot: what was missed is in it. What is
// known stays in the meantime.
func (r *run) feed(ctx context.Context) {
	retry := feedFirst
	for ctx.Err() == nil {
		begun := time.Now()
		if err := r.follow(ctx); err != nil && ctx.Err() == nil {
			r.log.Debug("watch ended, beginning again", "why", err)
		}
		if time.Since(begun) > peace {
			retry = feedFirst
		}
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		retry = min(2*retry, feedMax)
	}
}

// follow sends one snapshot and the changes after it, until the watch breaks or the store is found to be another one.
func (r *run) follow(ctx context.Context) error {
	snapshot, err := r.kv.List(ctx)
	r.hush(ctx, err)
	if err != nil {
		return err
	}
	r.send(ctx, news{snapshot: &snapshot})
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var seen atomic.Int64
	seen.Store(snapshot.Revision)
	go r.guard(ctx, stop, snapshot.Cluster, &seen)
	err = r.kv.Watch(ctx, snapshot.Revision, func(b claim.Batch) {
		seen.Store(max(seen.Load(), b.Revision))
		r.send(ctx, news{batch: b})
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// guard asks the store now and then whether it still is the one being watched: a watch of a store that went silent, or was
// put back to an earlier revision, waits for ever without an error.
func (r *run) guard(ctx context.Context, stop context.CancelCauseFunc, cluster uint64, seen *atomic.Int64) {
	tick := time.NewTicker(r.CheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.again:
			stop(errAgain)
			return
		case <-tick.C:
		}
		before := seen.Load() // what was seen before the question is in the answer
		revision, now, err := r.kv.Check(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil && revision >= before && now == cluster {
			continue
		}
		if err != nil {
			r.hush(ctx, err)
		}
		stop(errAgain)
		return
	}
}

// hush tells the run that the store does not answer, and why, or that it does.
func (r *run) hush(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = fmt.Sprintf("the store does not answer, what is known stays: %v", err)
	}
	r.send(ctx, news{silence: &text})
}

func (r *run) send(ctx context.Context, n news) {
	select {
	case r.news <- n:
	case <-ctx.Done():
	}
}
