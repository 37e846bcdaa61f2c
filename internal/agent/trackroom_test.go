package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"weft/internal/agent/facts"
)

// TestMakeRoom: room is made once for all, never taken away, and where it can't be made that is said once.
func TestMakeRoom(t *testing.T) {
	wanted := 32768 * runtime.NumCPU()
	for _, x := range []struct {
		what   string
		f      facts.Facts
		now    int // both parameters
		err    error
		raised bool
		said   int
	}{
		{"less than wanted", facts.Facts{}, 1024, nil, true, 2},
		{"more than wanted", facts.Facts{}, 1 << 30, nil, false, 0},
		{"no services here", facts.Facts{ProxyMode: facts.NoProxy}, 1024, nil, false, 0},
		{"nothing tracked yet", facts.Facts{Services: facts.Services{Untracked: true}}, 1024, nil, false, 0},
		{"a namespace that only reads", facts.Facts{}, 1024, fs.ErrPermission, false, 1},
		{"a kernel that refuses", facts.Facts{}, 1024, errors.New("no memory"), false, 4},
	} {
		var log strings.Builder
		a := &agent{log: slog.New(slog.NewTextHandler(&log, nil))}
		x.f.Services.Tracking = facts.Tracking{MaxPerCore: 32768}
		values := map[string]int{facts.TrackingMax: x.now, facts.TrackingBuckets: x.now}
		for range 2 {
			a.makeRoom(x.f, func(name string, n int) (int, bool, error) {
				was := values[name]
				if was >= n || x.err != nil {
					return was, false, x.err
				}
				values[name] = n
				return was, true, nil
			})
		}
		want := map[string]int{facts.TrackingMax: x.now, facts.TrackingBuckets: x.now}
		if x.raised {
			want = map[string]int{facts.TrackingMax: wanted, facts.TrackingBuckets: wanted / 4}
		}
		if fmt.Sprint(values) != fmt.Sprint(want) || strings.Count(log.String(), "\n") != x.said {
			t.Errorf("%s: %v, want %v; said %d lines:\n%s", x.what, values, want, x.said, &log)
		}
	}
}
