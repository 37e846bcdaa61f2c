package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// cause says, as bits, what may have changed since a loop's last step.
type cause uint32

const (
	byPlan     cause = 1 << iota // what is wanted: leases, pods, services
	byHost                       // the host's facts: what failed may work now, so nothing is waited for
	byKernel                     // somebody changed links, addresses, routes, parameters or table inet weft
	byIPTables                   // somebody changed rules of iptables
	byTime                       // nobody said anything: the first step, a failed one's next try, the full check
)

// byOthers are the causes that another program can bring about as fast as it likes.
const byOthers = byKernel | byIPTables

// trigger is a channel that receives when something may have changed.
type trigger struct {
	ch    <-chan struct{}
	cause cause
}

// work is what a step did.
type work struct {
	ops int
	// repaired names objects that were as planned after the step before and no longer were: somebody else changed them.
	repaired []string
	by       map[string]string // who, as far as known

	// A step that is paced holds objects that are fought for back by itself, so that others do not wait for them.
	paced  bool
	fights []Fight
	notes  []string  // for the log
	again  time.Time // when what is held back is due
}

// undoneError says that what a step did was not there when it looked again: the kernel does not keep it, or somebody else undid it.
type undoneError struct {
	what    string   // "iptables rules"
	objects []string // those not as planned
	first   string   // the first of the ops that are left
}

func (e *undoneError) Error() string {
	return fmt.Sprintf("read back: %d %s are not as planned, the first: %s", len(e.objects), e.what, e.first)
}

// loop runs one subsystem's step whenever something may have changed: a trigger, a timer, or the step before having failed.
// Triggers that come while a step runs are one trigger: the step looks at the state, not at the event.
type loop struct {
	name     string
	step     func(context.Context, cause) (work, error)
	triggers []trigger
	every    time.Duration // a full check runs at least this often
	duty     int           // see pace
	gap      time.Duration // see pace
	healing  *healing      // is told of repairs; nil for nobody
	log      *slog.Logger
}

// run steps until ctx ends. A failing step is logged once for each different error and tried again with back-off; one that works
// against another writer is slowed down.
func (l *loop) run(ctx context.Context) error {
	in := listen(ctx, l.triggers)
	p := pace{duty: l.duty, gap: l.gap}
	due, lastErr := byTime, ""
	var since time.Time
	for {
		begun := time.Now()
		w, err := l.step(ctx, due)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if e, ok := errors.AsType[*undoneError](err); ok && !w.paced {
			w.repaired = append(w.repaired, e.objects...)
		}
		for _, note := range p.after(now, now.Sub(begun), w, err) {
			l.log.Warn(note, "loop", l.name)
		}
		l.healing.step(l.name, now, since, w, append(w.fights, p.fights.report(l.name)...))
		switch {
		case err != nil && err.Error() != lastErr:
			l.log.Error("step failed, will be tried again", "loop", l.name, "err", err)
			lastErr = err.Error()
		case err == nil && lastErr != "":
			l.log.Info("step works again", "loop", l.name)
			lastErr = ""
		}
		full := now.Add(l.every)
		if err != nil {
			full = now.Add(p.retry())
		}
		var ok bool
		if due, since, ok = in.next(ctx, &p, full, w.again); !ok {
			return nil
		}
	}
}

// inbox collects causes for one loop.
type inbox struct {
	pending atomic.Uint32
	since   atomic.Int64 // when the first of them came, in ns since 1970; 0: none did
	wake    chan struct{}
}

// listen collects what the triggers say until ctx ends.
func listen(ctx context.Context, triggers []trigger) *inbox {
	in := &inbox{wake: make(chan struct{}, 1)}
	for _, t := range triggers {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case _, ok := <-t.ch:
					if !ok {
						return
					}
					in.since.CompareAndSwap(0, time.Now().UnixNano())
					in.pending.Or(uint32(t.cause))
					poke(in.wake)
				}
			}
		}()
	}
	return in
}

// next waits until a step is due: for a cause, as soon as the pace lets it, at the time again, if any, for what was held back, or at the
// time full. since is when the first cause came, zero without one; ok is false when ctx ended.
func (in *inbox) next(ctx context.Context, p *pace, full, again time.Time) (due cause, since time.Time, ok bool) {
	for {
		now := time.Now()
		at := full
		if !again.IsZero() && again.Before(at) {
			at = again
		}
		if pending := cause(in.pending.Load()); pending != 0 {
			if t := p.earliest(pending); t.Before(at) {
				at = t
			}
		}
		if !at.After(now) {
			if ns := in.since.Swap(0); ns != 0 {
				since = time.Unix(0, ns)
			}
			due = cause(in.pending.Swap(0))
			if !full.After(now) {
				due |= byTime
			}
			if due == 0 {
				due = byKernel
			}
			return due, since, true
		}
		timer := time.NewTimer(at.Sub(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return 0, time.Time{}, false
		case <-in.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// poke leaves one wake-up in ch.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
