package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Counter turns single answers into a state by the probe's thresholds.
type Counter struct {
	Success, Failure int32 // thresholds, at least 1
	ok, known        bool
	run              int32 // answers in a row of the kind last
	last             bool
}

// NewCounter counts by the thresholds of p.
func NewCounter(p *corev1.Probe) *Counter {
	c := &Counter{Success: p.SuccessThreshold, Failure: p.FailureThreshold}
	if c.Success < 1 {
		c.Success = 1
	}
	if c.Failure < 1 {
		c.Failure = 3
	}
	return c
}

// Add counts one answer. It returns the state and whether this answer reached it: a failure threshold is reached again by every
// further run of failures.
func (c *Counter) Add(ok bool) (state, reached bool) {
	if c.run == 0 || c.last != ok {
		c.run, c.last = 0, ok
	}
	c.run++
	threshold := c.Failure
	if ok {
		threshold = c.Success
	}
	if c.run < threshold {
		return c.ok, false
	}
	reached = !c.known || c.ok != ok || !ok && c.run == threshold
	if !ok && c.run >= threshold {
		c.run = 0
	}
	c.ok, c.known = ok, true
	return ok, reached
}

// Report is one answer, and what it made of the state.
type Report struct {
	Err     error // of this answer, nil for success
	OK      bool  // the state, true when the probe succeeds
	Reached bool  // the state was reached by this answer
}

// Run probes until ctx ends: first when the container, started at, is initialDelaySeconds old, then every periodSeconds.
func Run(ctx context.Context, p *corev1.Probe, at time.Time, t Target, report func(Report)) {
	count := NewCounter(p)
	wait := time.Until(at.Add(time.Duration(p.InitialDelaySeconds) * time.Second))
	for {
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		err := Once(ctx, p, t)
		if ctx.Err() != nil {
			return
		}
		state, reached := count.Add(err == nil)
		report(Report{Err: err, OK: state, Reached: reached})
		wait = seconds(p.PeriodSeconds, 10)
	}
}
