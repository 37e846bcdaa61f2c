package loop

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// repairBuckets are the upper bounds of the histogram of repair times, in seconds.
var repairBuckets = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// Healing counts repairs of all loops: how long they took, and what is fought for.
type Healing struct {
	mu     sync.Mutex
	kinds  map[string]*repairs // by the first word of the objects' names
	fights map[string][]Fight  // by loop
}

// repairs is a histogram.
type repairs struct {
	buckets [len(repairBuckets)]uint64 // not cumulative
	count   uint64
	sum     time.Duration
}

// Step takes in what a loop's step did that ended now, for causes the first of which came at since.
func (h *Healing) Step(loop string, now, since time.Time, w Work, fights []Fight) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fights == nil {
		h.kinds, h.fights = map[string]*repairs{}, map[string][]Fight{}
	}
	h.fights[loop] = fights
	if len(fights) == 0 {
		delete(h.fights, loop)
	}
	if since.IsZero() {
		return // found by the full check, or held back
	}
	seen := map[string]bool{}
	for _, name := range w.Repaired {
		kind, _, _ := strings.Cut(name, " ")
		if seen[kind] || slices.ContainsFunc(fights, func(f Fight) bool { return f.Object == name }) {
			continue // one step is one repair; a slowed one says nothing
		}
		seen[kind] = true
		h.observe(kind, now.Sub(since))
	}
}

func (h *Healing) observe(kind string, took time.Duration) {
	r := h.kinds[kind]
	if r == nil {
		r = &repairs{}
		h.kinds[kind] = r
	}
	r.count++
	r.sum += took
	for i, le := range repairBuckets {
		if took.Seconds() <= le {
			r.buckets[i]++
			break
		}
	}
}

// RepairsOf is how many repairs of objects of the kind, the first word of their names, were measured.
func (h *Healing) RepairsOf(kind string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.kinds[kind]; r != nil {
		return r.count
	}
	return 0
}

// List returns the fights of all loops.
func (h *Healing) List() []Fight {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Fight
	for _, loop := range slices.Sorted(maps.Keys(h.fights)) {
		out = append(out, h.fights[loop]...)
	}
	return out
}

// WriteMetrics prints the histogram and the fights in the Prometheus text format.
func (h *Healing) WriteMetrics(w io.Writer) {
	if h == nil {
		return
	}
	fights := h.List()
	fmt.Fprintf(w, "# HELP weft_fights objects that somebody else keeps changing and that are repaired ever more slowly\n# TYPE weft_fights gauge\n"+
		"weft_fights %d\n", len(fights))
	if len(fights) > 0 {
		fmt.Fprintf(w, "# HELP weft_fight_repairs repairs in a row of an object that is fought for\n# TYPE weft_fight_repairs gauge\n")
	}
	for _, f := range fights {
		fmt.Fprintf(w, "weft_fight_repairs{loop=%q,object=%q,by=%q} %d\n", f.Loop, f.Object, f.By, f.Repairs)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	const name = "weft_repair_seconds"
	fmt.Fprintf(w, "# HELP %s from the kernel's word that somebody changed an object until it was as planned again\n# TYPE %s histogram\n", name, name)
	for _, kind := range slices.Sorted(maps.Keys(h.kinds)) {
		r := h.kinds[kind]
		sum := uint64(0)
		for i, le := range repairBuckets {
			sum += r.buckets[i]
			fmt.Fprintf(w, "%s_bucket{object=%q,le=\"%g\"} %d\n", name, kind, le, sum)
		}
		fmt.Fprintf(w, "%s_bucket{object=%q,le=\"+Inf\"} %d\n", name, kind, r.count)
		fmt.Fprintf(w, "%s_sum{object=%q} %g\n%s_count{object=%q} %d\n", name, kind, r.sum.Seconds(), name, kind, r.count)
	}
}
