package agent

import (
	"errors"
	"io/fs"

	"weft/internal/agent/facts"
)

// raise brings a parameter to a value at least, as sysctl.Raise does.
type raise func(name string, n int) (was int, raised bool, err error)

// makeRoom gives connection tracking room for as many connections as the flags say. What is larger stays: it is the administrator's.
func (a *agent) makeRoom(f facts.Facts, up raise) {
	connections, buckets := f.Services.Tracking.Room()
	if connections == 0 || f.Services.Untracked || f.ProxyMode == facts.NoProxy {
		return
	}
	for _, p := range []struct {
		name string
		n    int
	}{{facts.TrackingBuckets, buckets}, {facts.TrackingMax, connections}} {
		was, raised, err := up(p.name, p.n)
		switch {
		case raised:
			a.log.Info("made room for connections", "parameter", p.name, "was", was, "now", p.n)
		case errors.Is(err, fs.ErrPermission): // a network namespace that isn't the kernel's first only reads it
			if p.name == facts.TrackingMax && a.noRoom != p.n {
				a.noRoom = p.n
				a.log.Warn("connection tracking has less room than asked for: set it where it can be set, or give a smaller --conntrack-max-per-core",
					"parameter", p.name, "is", was, "want", p.n)
			}
		case err != nil:
			a.log.Error("make room for connections", "parameter", p.name, "err", err)
		}
	}
}
