package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Back-off of a failing step. What triggers bring makes it try again sooner, but not at the speed of the triggers.
const (
	retryFirst   = 100 * time.Millisecond
	retryMax     = 30 * time.Second
	retryTrigger = time.Second
)

// A fight: an object repaired more than fightLimit times, each time within fightGap after the time before. Every further repair waits
// twice as long as the one before.
const (
	fightLimit = 10
	fightGap   = time.Second
	fightFirst = 200 * time.Millisecond
	fightMax   = 10 * time.Second
	// fightNames bounds how many objects of one step are looked at: a flushed table has many.
	fightNames = 16
)

// pace says when a loop may step again. It has no clock of its own. The zero pace is that of a loop that begins.
type pace struct {
	failures int
	failedAt time.Time
	rest     time.Time // before this nothing that others bring about
	fights   map[string]*fight
}

// fight counts the repairs of one object.
type fight struct {
	repairs int
	last    time.Time
	told    bool
}

// delay is how long the next repair waits.
func (f *fight) delay() time.Duration {
	if f.repairs <= fightLimit {
		return 0
	}
	return min(fightFirst<<min(f.repairs-fightLimit-1, 16), fightMax)
}

// over reports whether the other writer has given up.
func (f *fight) over(now time.Time) bool { return now.Sub(f.last) > fightGap+2*f.delay() }

// after takes in a step that ended now. The notes are for the log.
func (p *pace) after(now time.Time, took time.Duration, w work, err error) (notes []string) {
	p.failures++
	p.failedAt = now
	if err == nil {
		p.failures = 0
	}
	// A step costs its time at most every second time: others may not make us busy all the time.
	p.rest = now.Add(min(took, time.Second))
	for name, f := range maps.All(p.fights) {
		if !f.over(now) {
			continue
		}
		if f.told {
			notes = append(notes, fmt.Sprintf("nobody changes %s any more", name))
		}
		delete(p.fights, name)
	}
	for _, name := range w.repaired[:min(len(w.repaired), fightNames)] {
		f := p.fights[name]
		if f == nil {
			f = &fight{}
			if p.fights == nil {
				p.fights = map[string]*fight{}
			}
			p.fights[name] = f
		}
		f.repairs++
		f.last = now
		if d := f.delay(); d > 0 {
			if at := now.Add(d); at.After(p.rest) {
				p.rest = at
			}
			if !f.told && !p.told() { // one line is enough when they are many
				notes = append(notes, fmt.Sprintf("somebody else keeps changing %s (repaired %d times in a row): "+
					"repairing it ever more slowly, find and stop the other writer", name, f.repairs))
				f.told = true
			}
		}
	}
	slices.Sort(notes)
	return notes
}

// told reports whether a fight was reported.
func (p *pace) told() bool {
	for _, f := range p.fights {
		if f.told {
			return true
		}
	}
	return false
}

// retry is how long a failed step waits when nothing happens.
func (p *pace) retry() time.Duration {
	return min(retryFirst<<min(max(p.failures-1, 0), 16), retryMax)
}

// earliest is when a step for the causes may begin; the zero time is at once.
func (p *pace) earliest(c cause) time.Time {
	if c&byHost != 0 {
		return time.Time{}
	}
	var at time.Time
	if p.failures > 0 {
		at = p.failedAt.Add(min(p.retry(), retryTrigger))
	}
	if c&^byOthers == 0 && p.rest.After(at) {
		at = p.rest
	}
	return at
}
