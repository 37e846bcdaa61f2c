package agent

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"weft/internal/agent/loop"
	"weft/internal/kernel/resident"
)

// How long after a look at the whole network memory is given back, and how much later the next time is at the earliest.
const (
	giveBackAfter = 3 * time.Second
	giveBackRest  = 10 * time.Second
)

// giveBack returns memory to the kernel that looks at the whole network took, and the pages of the program that only they needed: an agent is
// idle nearly always.
func (a *agent) giveBack(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.data.Looked():
		}
		if !loop.Pause(ctx, giveBackAfter) {
			return nil
		}
		debug.FreeOSMemory()
		if _, err := resident.DropProgram(); err != nil {
			a.log.Debug("pages of the program stay", "err", err)
		}
		if !loop.Pause(ctx, giveBackRest) {
			return nil
		}
	}
}

// listRoom is how much garbage there may be while the cluster is listed, besides what gcPercent allows.
const listRoom = 16 << 20

// listAtEase lets garbage lie until everything is listed once. What comes then lives for a moment only, many times what is kept of it, and
// little is kept yet: by gcPercent there would be a collection for every few MiB.
//
// The room is an allocation that nobody ever touches, so no page of it is in memory; it counts as live, and the heap may grow by a part of it.
func listAtEase(ctx context.Context, listed <-chan struct{}) {
	room := make([]byte, listRoom/gcPercent*100)
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-ctx.Done():
	case <-limit.C: // the API does not answer
	case <-listed:
	}
	runtime.KeepAlive(room)
	runtime.GC()
}
