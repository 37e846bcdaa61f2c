package paths

import (
	"container/heap"
	"net/netip"
	"time"
)

// dueQueue holds when each path is to be looked at, the earliest first (container/heap). An entry that says another time than its path
// counts for nothing.
type dueQueue []dueEntry

type dueEntry struct {
	at time.Time
	to netip.Addr
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q dueQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push adds an entry at the end.
func (q *dueQueue) Push(x any) {
	if e, ok := x.(dueEntry); ok {
		*q = append(*q, e)
	}
}

// Pop removes the last entry.
func (q *dueQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	*q = (*q)[:last]
	return e
}

// plan makes the path due at a time.
func (p *Paths) plan(to netip.Addr, x *path, at time.Time) {
	x.due = at
	heap.Push(&p.queue, dueEntry{at, to})
}

// first returns the path that is due first, nil when there is none.
func (p *Paths) first() (netip.Addr, *path) {
	for len(p.queue) > 0 {
		e := p.queue[0]
		if x := p.known[e.to]; x != nil && !x.busy && x.due.Equal(e.at) {
			return e.to, x
		}
		heap.Pop(&p.queue)
	}
	return netip.Addr{}, nil
}
