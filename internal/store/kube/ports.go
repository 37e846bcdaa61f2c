package kube

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
)

// portList is the ports of all services in the order of the services' keys.
type portList []api.ServicePort

// compareKey compares a service port's key, "namespace/name", with another.
func compareKey(s *api.ServicePort, key string) int {
	ns := s.Name.Namespace
	if len(key) <= len(ns) || key[:len(ns)] != ns || key[len(ns)] != '/' {
		return strings.Compare(ns+"/"+s.Name.Name, key)
	}
	return strings.Compare(s.Name.Name, key[len(ns)+1:])
}

// find returns where a service's ports are, or would be.
func (l portList) find(key string) (from, to int) {
	from, _ = slices.BinarySearchFunc(l, key, func(s api.ServicePort, key string) int { return compareKey(&s, key) })
	for to = from; to < len(l) && compareKey(&l[to], key) == 0; to++ {
	}
	return from, to
}

// with returns a copy in which the services have the ports given by key.
func (l portList) with(changed map[string][]api.ServicePort) portList {
	out := make(portList, 0, len(l)+len(changed))
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		from, to := l.find(key)
		out = append(append(out, l[:from]...), changed[key]...)
		l = l[to:]
	}
	return append(out, l...)
}

// put gives one service other ports in place. It reports false, and does nothing, when their number is another.
func (l portList) put(key string, ports []api.ServicePort) bool {
	from, to := l.find(key)
	if to-from != len(ports) {
		return false
	}
	copy(l[from:to], ports)
	return true
}

// Feed is a reader's own list of the service ports, changed in place: a changed service costs that service, however many there are. It
// is not safe for concurrent use.
type Feed struct {
	w       *Watch
	version uint64
}

// Feed returns the watch's feed. There may be one.
func (w *Watch) Feed() *Feed { return &Feed{w: w} }

// Snapshot is the cluster as the Watch knows it now, with Changes that tell what is different from the Snapshot before. Its Services are
// valid until the next call.
func (f *Feed) Snapshot() api.Snapshot {
	w := f.w
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &api.ServiceChanges{From: f.version}
	if f.version == 0 {
		w.fed, w.fedSince, w.ports = true, time.Now(), w.ports.with(w.merge())
		c.Fresh, f.version = slices.Clone(w.ports), 1
	} else if w.advance(c); len(c.Gone)+len(c.Fresh) > 0 {
		f.version++
	}
	clear(w.dirty)
	w.serviceChanges.pending, w.sliceChanges.pending = 0, 0
	c.Triggered, w.triggers = w.triggers, nil
	c.To = f.version
	snap := *w.objects()
	snap.Services, snap.Changes, snap.Problems = w.ports, c, w.problems()
	return snap
}

// advance brings the list up to date, in place where no service has more or fewer ports than before, and notes what is different.
func (w *Watch) advance(c *api.ServiceChanges) {
	anew := map[string][]api.ServicePort{}
	merged := w.merge()
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		after := merged[key]
		from, to := w.ports.find(key)
		compare(c, w.ports[from:to], after)
		if !w.ports.put(key, after) {
			anew[key] = after
		}
	}
	if len(anew) > 0 {
		w.ports = w.ports.with(anew)
	}
}

// compare adds how the ports of one service differ from before.
func compare(c *api.ServiceChanges, before, after []api.ServicePort) {
	at := func(list []api.ServicePort, s *api.ServicePort) int {
		return slices.IndexFunc(list, func(x api.ServicePort) bool { return x.Name == s.Name && x.Protocol == s.Protocol })
	}
	for i := range before {
		if at(after, &before[i]) < 0 {
			c.Gone = append(c.Gone, before[i])
		}
	}
	for i := range after {
		if j := at(before, &after[i]); j < 0 || !reflect.DeepEqual(before[j], after[i]) {
			c.Fresh = append(c.Fresh, after[i])
		}
	}
}
