// Package loop runs the step of one subsystem again and again: when a trigger says that something may have changed, when the step before failed,
// and now and then. It slows a step down that works against another writer, and counts how long repairs take.
//
// Floor 4, programs.
package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// Cause says, as bits, what may have changed since a loop's last step.
type Cause uint32

// What may have changed.
const (
	ByPlan     Cause = 1 << iota // what is wanted: leases, pods, services
	ByHost                       // the host's facts: what failed may work now, so nothing is waited for
	ByKernel                     // somebody changed links, addresses, routes, parameters or table inet weft
	ByIPTables                   // somebody changed rules of iptables
	ByTime                       // nobody said anything: the first step, a failed one's next try, the full check
)

// byOthers are the causes that another program can bring about as fast as it likes.
const byOthers = ByKernel | ByIPTables

// FullCheck is how often every loop looks at everything though nothing told it to.
const FullCheck = time.Minute

// Trigger is a channel that receives when something may have changed.
type Trigger struct {
	ch    <-chan struct{}
	cause Cause
}

// On is the trigger that says of each receive from ch what it means.
func On(ch <-chan struct{}, c Cause) Trigger { return Trigger{ch, c} }

// Work is what a step did.
type Work struct {
	Ops int
	// Repaired names objects that were as planned after the step before and no longer were: somebody else changed them.
	Repaired []string
	By       map[string]string // who, as far as known

	// A step that is paced holds objects that are fought for back by itself, so that others do not wait for them.
	Paced  bool
	Fights []Fight
	Notes  []string  // for the log
	Again  time.Time // when what is held back is due
}

// Stats counts what a loop did, for status and metrics.
type Stats struct {
	Steps     int    `json:"steps"`
	Ops       int    `json:"ops"`
	FirstOps  int    `json:"firstOps"` // of the first step: 0 after a restart with everything in place
	LastError string `json:"lastError,omitempty"`
}

// UndoneError says that what a step did was not there when it looked again: the kernel does not keep it, or somebody else undid it.
type UndoneError struct {
	What    string   // "iptables rules"
	Objects []string // those not as planned
	First   string   // the first of the ops that are left
}

func (e *UndoneError) Error() string {
	return fmt.Sprintf("read back: %d %s are not as planned, the first: %s", len(e.Objects), e.What, e.First)
}

// Loop runs one subsystem's step whenever something may have changed: a trigger, a timer, or the step before having failed.
// Triggers that come while a step runs are one trigger: the step looks at the state, not at the event.
type Loop struct {
	Name     string
	Step     func(context.Context, Cause) (Work, error)
	Triggers []Trigger
	Every    time.Duration // a full check runs at least this often
	Duty     int           // see pace
	Gap      time.Duration // see pace
	Healing  *Healing      // is told of repairs; nil for nobody
	Log      *slog.Logger
}

// Run steps until ctx ends. A failing step is logged once for each different error and tried again with back-off; one that works
// against another writer is slowed down.
func (l *Loop) Run(ctx context.Context) error {
	in := Listen(ctx, l.Triggers)
	p := pace{duty: l.Duty, gap: l.Gap}
	due, lastErr := ByTime, ""
	var since time.Time
	for {
		begun := time.Now()
		w, err := l.Step(ctx, due)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if e, ok := errors.AsType[*UndoneError](err); ok && !w.Paced {
			w.Repaired = append(w.Repaired, e.Objects...)
		}
		for _, note := range p.after(now, now.Sub(begun), w, err) {
			l.Log.Warn(note, "loop", l.Name)
		}
		l.Healing.Step(l.Name, now, since, w, append(w.Fights, p.fights.Report(l.Name)...))
		switch {
		case err != nil && err.Error() != lastErr:
			l.Log.Error("step failed, will be tried again", "loop", l.Name, "err", err)
			lastErr = err.Error()
		case err == nil && lastErr != "":
			l.Log.Info("step works again", "loop", l.Name)
			lastErr = ""
		}
		full := now.Add(l.Every)
		if err != nil {
			full = now.Add(p.retry())
		}
		var ok bool
		if due, since, ok = in.next(ctx, &p, full, w.Again); !ok {
			return nil
		}
	}
}

// Inbox collects causes for one loop.
type Inbox struct {
	pending atomic.Uint32
	since   atomic.Int64 // when the first of them came, in ns since 1970; 0: none did
	wake    chan struct{}
}

// Listen collects what the triggers say until ctx ends.
func Listen(ctx context.Context, triggers []Trigger) *Inbox {
	in := &Inbox{wake: make(chan struct{}, 1)}
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
					Poke(in.wake)
				}
			}
		}()
	}
	return in
}

// Set makes the causes those that are pending, in place of what was.
func (in *Inbox) Set(c Cause) { in.pending.Store(uint32(c)) }

// Causes are those that are pending.
func (in *Inbox) Causes() Cause { return Cause(in.pending.Load()) }

// Woken receives after a cause came, and after a nudge.
func (in *Inbox) Woken() <-chan struct{} { return in.wake }

// Nudge wakes who waits without a cause.
func (in *Inbox) Nudge() { Poke(in.wake) }

// next waits until a step is due: for a cause, as soon as the pace lets it, at the time again, if any, for what was held back, or at the
// time full. since is when the first cause came, zero without one; ok is false when ctx ended.
func (in *Inbox) next(ctx context.Context, p *pace, full, again time.Time) (due Cause, since time.Time, ok bool) {
	for {
		now := time.Now()
		at := full
		if !again.IsZero() && again.Before(at) {
			at = again
		}
		if pending := Cause(in.pending.Load()); pending != 0 {
			if t := p.earliest(pending); t.Before(at) {
				at = t
			}
		}
		if !at.After(now) {
			if ns := in.since.Swap(0); ns != 0 {
				since = time.Unix(0, ns)
			}
			due = Cause(in.pending.Swap(0))
			if !full.After(now) {
				due |= ByTime
			}
			if due == 0 {
				due = ByKernel
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

// Poke leaves one wake-up in ch.
func Poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Pause waits; it reports whether ctx goes on.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
