package loop

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A fight: an object repaired more than FightLimit times, each time within fightGap after the time before. Every further repair waits
// twice as long as the one before.
const (
	FightLimit = 10
	fightGap   = time.Second
	fightFirst = 200 * time.Millisecond
	fightMax   = 10 * time.Second
	// FightNames bounds how many objects of one step are looked at: a flushed table has many.
	FightNames = 16
)

// Fight is an object that somebody else keeps changing, as status tells it.
type Fight struct {
	Loop    string    `json:"loop"`    // of the agent's loops, the one that repairs
	Object  string    `json:"object"`  // "route 172.16.78.0/24"
	By      string    `json:"by"`      // the last who did it, "pid 711 (ip)", "" when not known
	Repairs int       `json:"repairs"` // in a row
	Since   time.Time `json:"since"`   // the first of them
	Next    time.Time `json:"next"`    // no repair before
}

// fight counts the repairs of one object.
type fight struct {
	repairs     int
	first, last time.Time
	by          string
	told        bool
}

// delay is how long the next repair waits.
func (f *fight) delay() time.Duration {
	if f.repairs <= FightLimit {
		return 0
	}
	return min(fightFirst<<min(f.repairs-FightLimit-1, 16), fightMax)
}

// over reports whether the other writer has given up.
func (f *fight) over(now time.Time) bool { return now.Sub(f.last) > fightGap+2*f.delay() }

// Fights are those of one loop, by the object's name. The zero fights are none. It has no clock of its own.
type Fights struct{ list map[string]*fight }

// Repaired counts repairs made now. The notes are for the log.
func (f *Fights) Repaired(now time.Time, names []string, by map[string]string) (notes []string) {
	for _, name := range names[:min(len(names), FightNames)] {
		x := f.list[name]
		if x == nil {
			x = &fight{first: now}
			if f.list == nil {
				f.list = map[string]*fight{}
			}
			f.list[name] = x
		}
		x.repairs++
		x.last, x.by = now, cmp.Or(by[name], x.by)
		if x.delay() > 0 && !x.told && !f.told() { // one line is enough when they are many
			who := "somebody else"
			if x.by != "" {
				who = x.by
			}
			notes = append(notes, fmt.Sprintf("%s keeps changing %s (repaired %d times in a row): "+
				"repairing it ever more slowly, find and stop the other writer", who, name, x.repairs))
			x.told = true
		}
	}
	slices.Sort(notes)
	return notes
}

// told reports whether a fight was reported.
func (f *Fights) told() bool {
	for _, x := range f.list {
		if x.told {
			return true
		}
	}
	return false
}

// Ended forgets the fights that are over. The notes are for the log.
func (f *Fights) Ended(now time.Time) (notes []string) {
	for name, x := range maps.All(f.list) {
		if !x.over(now) {
			continue
		}
		if x.told {
			notes = append(notes, fmt.Sprintf("nobody changes %s any more", name))
		}
		delete(f.list, name)
	}
	slices.Sort(notes)
	return notes
}

// Held returns until when the object is not repaired; a time that is past, as the zero time, holds nothing back.
func (f *Fights) Held(name string) time.Time {
	x := f.list[name]
	if x == nil || x.delay() == 0 {
		return time.Time{}
	}
	return x.last.Add(x.delay())
}

// Rest is until when the last of all waits.
func (f *Fights) Rest() (at time.Time) {
	for name := range f.list {
		if t := f.Held(name); t.After(at) {
			at = t
		}
	}
	return at
}

// Report lists the fights that are slowed down, by name.
func (f *Fights) Report(loop string) []Fight {
	var out []Fight
	for name, x := range f.list {
		if x.delay() > 0 {
			out = append(out, Fight{Loop: loop, Object: name, By: x.by, Repairs: x.repairs, Since: x.first, Next: f.Held(name)})
		}
	}
	slices.SortFunc(out, func(a, b Fight) int { return cmp.Compare(a.Object, b.Object) })
	return out
}
