package agent

import (
	"context"
	"runtime/debug"
	"time"

	"weft/internal/kernel/resident"
)

// startedAfter is how long after the first check what only the start needed is given back: the loops that follow it have begun by then.
const startedAfter = time.Second

// giveBack returns memory to the kernel that reading the whole network took, and the pages of the program that only the start needed: an
// agent is idle nearly always. It does so once after the start and then after each full check.
func (a *agent) giveBack(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.data.ready:
	}
	timer := time.NewTimer(startedAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		debug.FreeOSMemory()
		if _, err := resident.DropProgram(); err != nil {
			a.log.Debug("pages of the program stay", "err", err)
		}
		timer.Reset(fullCheck)
	}
}
