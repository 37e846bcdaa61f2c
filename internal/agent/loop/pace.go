package loop

import (
	"time"
)

// Back-off of a failing step. What triggers bring makes it try again sooner, but not at the speed of the triggers.
const (
	retryFirst   = 10 * time.Millisecond // a step most often fails because what it looked at was changing
	retryMax     = 30 * time.Second
	retryTrigger = time.Second
)

// fightDuty is how many times a step's duration passes before the next while somebody fights.
const fightDuty = 10

// restMost bounds what a loop owes after a step: a repair waits no longer for what was done before it.
const restMost = time.Second

// burst is for how long a loop may work for others at a stretch before it keeps to its duty: an injury of several parts is repaired part by
// part as it happens.
const burst = 50 * time.Millisecond

// pace says when a loop may step again. It has no clock of its own. The zero pace is that of a loop that begins.
type pace struct {
	// A step that the plan causes begins no sooner than this after the one before began: the first change of a burst is programmed at
	// once, the others in few transactions.
	gap      time.Duration
	begun    time.Time
	duty     int       // how many times a step's duration passes, taken over time, before others may cause the next; 0 is 1
	idle     time.Time // when that will have passed for all steps so far
	failures int
	failedAt time.Time
	rest     time.Time // before this nothing that others bring about
	fights   Fights    // of steps that don't hold objects back themselves
}

// after takes in a step that ended now. The notes are for the log.
func (p *pace) after(now time.Time, took time.Duration, w Work, err error) (notes []string) {
	p.failures++
	p.failedAt, p.begun = now, now.Add(-took)
	if err == nil {
		p.failures = 0
	}
	// Others may not make us busy all the time.
	duty := time.Duration(max(p.duty, 1))
	if p.idle.Before(now) {
		p.idle = now
	}
	p.idle = p.idle.Add(took * duty)
	if most := now.Add(burst*duty + restMost); p.idle.After(most) {
		p.idle = most
	}
	p.rest = p.idle.Add(-burst * duty)
	if at := now.Add(min(took*fightDuty, restMost)); len(w.Fights) > 0 && at.After(p.rest) {
		p.rest = at
	}
	notes = append(w.Notes, p.fights.Ended(now)...)
	if w.Paced {
		return notes
	}
	notes = append(notes, p.fights.Repaired(now, w.Repaired, w.By)...)
	if at := p.fights.Rest(); at.After(p.rest) {
		p.rest = at
	}
	return notes
}

// retry is how long a failed step waits when nothing happens.
func (p *pace) retry() time.Duration {
	return min(retryFirst<<min(max(p.failures-1, 0), 16), retryMax)
}

// earliest is when a step for the causes may begin; the zero time is at once.
func (p *pace) earliest(c Cause) time.Time {
	if c&ByHost != 0 {
		return time.Time{}
	}
	var at time.Time
	if p.failures > 0 {
		at = p.failedAt.Add(min(p.retry(), retryTrigger))
	}
	if next := p.begun.Add(p.gap); p.gap > 0 && next.After(at) {
		at = next
	}
	if c&^byOthers == 0 && p.rest.After(at) {
		at = p.rest
	}
	return at
}
