package network

import (
	"context"
	"time"

	"weft/internal/agent/loop"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

// parameterCheck is how often the host's parameters are looked at: what the kernel changes by itself and writes through another mount of
// proc cause no events.
const parameterCheck = 3 * time.Second

// parameterDuty is how many times the duration of a look passes before events make the next one.
const parameterDuty = 10

// watchParameters has those of the host's parameters mended that are not as planned. Two sources tell of changes: netlink of some, whoever
// makes them, and inotify of all that are written to. made receives after the plan was applied.
func (d *Loop) watchParameters(ctx context.Context, changed, made <-chan struct{}, files *sysctl.Files, wrong chan struct{}) error {
	tick := time.NewTicker(parameterCheck)
	defer tick.Stop()
	written, mark := files.Changed(), true
	for {
		begun := time.Now()
		want := d.parameters()
		if mark {
			if err := files.Set(keys(want)); err != nil {
				d.log.Debug("parameters not watched", "err", err) // then they are looked at now and then
			}
		}
		have, err := sysctl.Read(want)
		if err != nil {
			d.log.Debug("parameters not read", "err", err) // the loop's full check reports it
		}
		if bad := unlike(want, have); len(bad) > 0 {
			d.mender.setWrong(bad)
			loop.Poke(wrong)
		}
		if !loop.Pause(ctx, parameterDuty*time.Since(begun)) {
			return nil
		}
		mark = false
		var ok bool
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			mark = true
		case <-made:
			mark = true
		case _, ok = <-changed:
			if !ok {
				changed = nil
			}
		case _, ok = <-written:
			if !ok {
				written = nil
			}
		}
	}
}

// unlike returns the parameters that are there and not as wanted.
func unlike(want, have netstate.State) map[netstate.ID]bool {
	bad := map[netstate.ID]bool{}
	for id, o := range have.All() {
		if w, ok := want.Get(id); ok && w.String() != o.String() {
			bad[id] = true
		}
	}
	return bad
}

func keys(s netstate.State) []string {
	out := make([]string, 0, s.Len())
	for id := range s.All() {
		out = append(out, id.Key)
	}
	return out
}

// parameters are those of the host's plan.
func (d *Loop) parameters() netstate.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.want.Select(func(o netstate.Object) bool { return o.Kind() == netstate.KindSysctl })
}
