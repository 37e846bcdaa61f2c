package agent

import (
	"context"
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
		case <-a.data.whole:
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
