package rtnl

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// maxInjuries bounds how many objects are remembered one by one: with more a Read costs no more than they do.
const maxInjuries = 256

// maxWriters bounds for how many of them the writer is looked up.
const maxWriters = 16

// Injury is an object that somebody else changed.
type Injury struct {
	ID netstate.ID
	// By is the process that did it as far as known: "pid 711 (ip)"; it may have ended since. "" when the kernel itself did it.
	By string
}

// injuries are the objects that events since the last Read were about.
type injuries struct {
	list  []Injury
	seen  map[netstate.ID]bool
	whole bool // something happened that the events alone don't tell
}

// take notes what an event that contradicts what is known says, and makes it known where the event tells all of it: a route, a neighbour or
// an FDB entry that is gone or another. A link takes others with it without a word, and so does an address the routes from it.
func (j *injuries) take(h *Handle, m wire.Message) {
	if j.whole {
		return
	}
	o, gone, ok := h.told(m)
	if !ok || len(j.list) >= maxInjuries {
		*j = injuries{whole: true}
		return
	}
	id := netstate.IDOf(o)
	if gone {
		h.known.Remove(id)
	} else {
		h.known.Add(o)
	}
	if j.seen[id] {
		return
	}
	if j.seen == nil {
		j.seen = map[netstate.ID]bool{}
	}
	j.seen[id] = true
	in := Injury{ID: id}
	if len(j.list) < maxWriters {
		in.By = writer(m.Port)
	}
	j.list = append(j.list, in)
}

// told returns the object of an event that tells all there is to know of it.
func (h *Handle) told(m wire.Message) (o netstate.Object, gone, ok bool) {
	switch m.Type {
	case unix.RTM_DELROUTE:
		o, ok = decodeRoute(m, h.name)
		return o, true, ok
	case unix.RTM_NEWROUTE: // one added beside another with the same key is seen by a Read only
		o, ok = decodeRoute(m, h.name)
		if !ok {
			return nil, false, false
		}
		_, known := h.known.Get(netstate.IDOf(o))
		return o, false, !known || m.Flags&unix.NLM_F_REPLACE != 0
	case unix.RTM_DELNEIGH:
		o, ok = decodeNeigh(m, h.name, true)
		return o, true, ok
	case unix.RTM_NEWNEIGH:
		if o, ok = decodeNeigh(m, h.name, false); ok {
			return o, false, true
		}
		o, ok = decodeNeigh(m, h.name, true)
		return o, true, ok
	}
	return nil, false, false
}

// lost notes that events were lost.
func (h *Handle) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.injuries = injuries{whole: true}
}

// Injuries returns the objects that others changed since the last Read or Injuries, and the ops that bring just these, and those with the
// other IDs, to what the last Read wanted. whole says that the events don't tell everything, so only a Read helps; it stays so until then.
func (h *Handle) Injuries(also ...netstate.ID) (list []Injury, ops []netstate.Op, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.injuries.whole {
		return nil, nil, true
	}
	list = h.injuries.list
	h.injuries = injuries{}
	want, have := netstate.New(), netstate.New()
	pick := func(id netstate.ID) {
		if o, ok := h.wanted.Get(id); ok {
			want.Add(o)
		}
		if o, ok := h.known.Get(id); ok {
			have.Add(o)
		}
	}
	for _, in := range list {
		pick(in.ID)
	}
	for _, id := range also {
		pick(id)
	}
	return list, netstate.Diff(want, have), false
}

// writer names the process behind a netlink port: the kernel gives a process's first socket the process's ID.
func writer(port uint32) string {
	if port == 0 || port >= 1<<22 { // PID_MAX_LIMIT
		return ""
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return fmt.Sprintf("pid %d", port)
	}
	return fmt.Sprintf("pid %d (%s)", port, strings.TrimSpace(string(comm)))
}
