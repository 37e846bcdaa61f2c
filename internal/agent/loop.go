package agent

import (
	"context"
	"log/slog"
	"time"
)

// loop runs one subsystem's step whenever something may have changed: a trigger, a timer, or the step before having failed.
// Triggers that come while a step runs are one trigger: the step looks at the state, not at the event.
type loop struct {
	name     string
	step     func(context.Context) error
	triggers []<-chan struct{}
	every    time.Duration // a full check runs at least this often
	log      *slog.Logger
}

// Back-off of a failing step.
const (
	retryFirst = 100 * time.Millisecond
	retryMax   = 30 * time.Second
)

// run steps until ctx ends. A failing step is logged once for each different error and tried again with back-off.
func (l *loop) run(ctx context.Context) error {
	wake := merge(ctx, l.triggers)
	retry := retryFirst
	lastErr := ""
	for {
		wait := l.every
		if err := l.step(ctx); err != nil && ctx.Err() == nil {
			if err.Error() != lastErr {
				l.log.Error("step failed, will be tried again", "loop", l.name, "err", err)
				lastErr = err.Error()
			}
			wait = retry
			retry = min(2*retry, retryMax)
		} else {
			if lastErr != "" && err == nil {
				l.log.Info("step works again", "loop", l.name)
			}
			retry, lastErr = retryFirst, ""
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// merge returns a channel that receives when any of the triggers does, coalesced to one pending wake-up.
func merge(ctx context.Context, triggers []<-chan struct{}) <-chan struct{} {
	wake := make(chan struct{}, 1)
	for _, t := range triggers {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case _, ok := <-t:
					if !ok {
						return
					}
					poke(wake)
				}
			}
		}()
	}
	return wake
}

// poke leaves one wake-up in ch.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
