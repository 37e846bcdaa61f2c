package loop

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestPaceOfAFight plays another writer that undoes each repair at once, with a clock of the test's own.
func TestPaceOfAFight(t *testing.T) {
	var p pace
	now := time.Unix(0, 0)
	steps, reports := 0, ""
	for end := now.Add(time.Minute); now.Before(end); {
		steps++
		for _, n := range p.after(now, time.Millisecond, Work{Ops: 1, Repaired: []string{"route 172.16.78.0/24"}}, nil) {
			reports += n + "\n"
		}
		if steps <= FightLimit && p.earliest(ByKernel).Sub(now) > 2*time.Millisecond {
			t.Fatalf("repair %d would wait until %s", steps+1, p.earliest(ByKernel))
		}
		now = now.Add(time.Millisecond)
		if at := p.earliest(ByKernel); at.After(now) {
			now = at
		}
	}
	if steps > 30 {
		t.Errorf("%d steps in a minute", steps)
	}
	if n := strings.Count(reports, "\n"); n != 1 || !strings.Contains(reports, "route 172.16.78.0/24") {
		t.Errorf("want one line that names the object, have:\n%s", reports)
	}
	if at := p.earliest(ByPlan); at.After(now) {
		t.Errorf("a new plan waits until %s because of a fight", at)
	}
	now = now.Add(time.Minute)
	notes := p.after(now, 0, Work{}, nil)
	if len(notes) != 1 || !strings.Contains(notes[0], "any more") || len(p.fights.list) != 0 {
		t.Errorf("after the fight: %q, %d left", notes, len(p.fights.list))
	}
	if p.after(now, 0, Work{Repaired: []string{"route 172.16.78.0/24"}}, nil); p.earliest(ByKernel).After(now) {
		t.Error("the first repair after peace waits")
	}
}

// TestPaceOfManyInjuries: different objects, or one now and then, are no fight.
func TestPaceOfManyInjuries(t *testing.T) {
	var p pace
	now := time.Unix(0, 0)
	for i := range 300 {
		name := "object " + string(rune('a'+i%30))
		if notes := p.after(now, 0, Work{Ops: 1, Repaired: []string{name}}, nil); len(notes) > 0 {
			t.Fatal(notes)
		}
		if p.earliest(ByKernel).After(now) {
			t.Fatalf("injury %d waits", i)
		}
		now = now.Add(50 * time.Millisecond)
	}
}

// TestPaceOfPartedInjuries: what comes in parts is repaired as it comes, but a loop that others keep busy keeps to its duty over time, and what
// the plan made it do holds no repair back for longer than a moment.
func TestPaceOfPartedInjuries(t *testing.T) {
	const step, minute = 2 * time.Millisecond, time.Minute
	start := time.Unix(1000, 0)
	for _, duty := range []int{0, 20} {
		p, now := pace{duty: duty}, start
		for i := range 20 {
			if p.after(now, step, Work{}, nil); p.earliest(ByKernel).After(now) {
				t.Fatalf("duty %d: part %d waits %s", duty, i+1, p.earliest(ByKernel).Sub(now))
			}
			now = now.Add(step)
		}
		busy := time.Duration(0)
		for end := now.Add(minute); now.Before(end); busy += step {
			now = now.Add(step)
			p.after(now, step, Work{}, nil)
			if at := p.earliest(ByKernel); at.After(now) {
				now = at
			}
		}
		if most := minute/time.Duration(1+max(duty-1, 0)) + 2*burst; busy > most {
			t.Errorf("duty %d: %s of a minute, want %s at most", duty, busy, most)
		}
		for range 1000 { // plans, back to back
			now = now.Add(step)
			p.after(now, step, Work{}, nil)
		}
		if wait := p.earliest(ByKernel).Sub(now); wait > restMost {
			t.Errorf("duty %d: a repair waits %s after many plans", duty, wait)
		}
		if now = now.Add(restMost + minute); p.earliest(ByKernel).After(now) {
			t.Errorf("duty %d: a repair waits after a minute's peace", duty)
		}
	}
}

func TestPaceOfFailures(t *testing.T) {
	var p pace
	now := time.Unix(0, 0)
	bad := errors.New("refused")
	tries := 0
	for end := now.Add(time.Minute); now.Before(end); tries++ {
		p.after(now, 0, Work{}, bad)
		at := p.earliest(ByKernel | ByPlan) // events all the time
		if !at.After(now) {
			t.Fatal("a failed step is tried again at once")
		}
		now = at
	}
	if tries > 70 {
		t.Errorf("%d tries in a minute of events", tries)
	}
	if p.retry() < 10*time.Second {
		t.Errorf("without events the next try is in %s", p.retry())
	}
	if at := p.earliest(ByHost); at.After(now) {
		t.Errorf("new facts of the host wait until %s", at)
	}
	p.after(now, 0, Work{}, nil)
	if p.earliest(ByPlan).After(now) {
		t.Error("after a success a new plan waits")
	}
}

// TestLoopUnderFire runs a real loop against a writer that makes an event of each of its steps.
func TestLoopUnderFire(t *testing.T) { synctest.Test(t, testLoopUnderFire) }

func testLoopUnderFire(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	events := make(chan struct{}, 1)
	var steps atomic.Int32
	first := make(chan time.Time, 1)
	l := Loop{Name: "test", Every: time.Hour, Log: slog.New(slog.DiscardHandler), Triggers: []Trigger{On(events, ByKernel)}}
	l.Step = func(_ context.Context, due Cause) (Work, error) {
		if steps.Add(1) == 2 {
			first <- time.Now()
			if due != ByKernel {
				t.Errorf("the second step is due to %b", due)
			}
		}
		Poke(events)
		return Work{Ops: 1, Repaired: []string{"set vips4"}}, nil
	}
	begun := time.Now()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if d := (<-first).Sub(begun); d > 100*time.Millisecond {
		t.Errorf("the first repair came after %s", d)
	}
	if n := steps.Load(); n > FightLimit+6 {
		t.Errorf("%d steps in a second of fight", n)
	}
}

// TestBurstsAreOneStep: changes that come fast are taken together, the first one at once.
func TestBurstsAreOneStep(t *testing.T) {
	p := pace{gap: 5 * time.Millisecond}
	now := time.Unix(1000, 0)
	if at := p.earliest(ByPlan); at.After(now) {
		t.Errorf("the first change waits until %s", at)
	}
	p.after(now, time.Millisecond, Work{Ops: 1}, nil)
	if at, want := p.earliest(ByPlan), now.Add(4*time.Millisecond); !at.Equal(want) {
		t.Errorf("the next begins at %s, want %s", at, want)
	}
	if at := p.earliest(ByHost | ByPlan); at.After(now) {
		t.Errorf("a change of the host waits until %s", at)
	}
}
