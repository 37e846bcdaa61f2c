package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/kernel"
	"weft/internal/kernel/netns"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/netstate"
	"weft/internal/nft"
)

// look tells from the outside whether everything in a namespace is as it was: a different eye than the agent's.
type look struct {
	path  string
	net   *kernel.Netns
	nft   *kernelnft.Conn
	text  func() (string, error) // rules that only a program can list
	want  netstate.State
	state netstate.State
	table *nft.Table
	rules string
}

// watcher looks at a namespace all the time.
type watcher struct {
	mu   sync.Mutex
	bad  time.Time   // last look that found something else
	good []time.Time // begins of the looks after that, which did not
	what string
	stop context.CancelFunc
	done chan struct{}
}

// newLook opens a namespace. parameters are looked at beside all that bears weft's mark.
func newLook(t *testing.T, path string, parameters netstate.State, table bool, rules func() (string, error)) *look {
	t.Helper()
	l := &look{path: path, text: rules, want: parameters}
	var err error
	if l.net, err = kernel.Open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.net.Close() })
	if table {
		if err := netns.Do(path, func() (err error) { l.nft, err = kernelnft.Open(); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.nft.Close() })
	}
	return l
}

// remember takes what is there now as what is to be there.
func (l *look) remember(ctx context.Context) error {
	var err error
	if l.state, err = l.net.Read(ctx, l.want); err != nil {
		return err
	}
	if l.nft != nil {
		if l.table, err = l.nft.Read(nft.INet, nft.TableName); err != nil {
			return err
		}
	}
	if l.text != nil {
		l.rules, err = l.text()
	}
	return err
}

// differs says what is not as remembered, "" when all is.
func (l *look) differs(ctx context.Context) string {
	state, err := l.net.Read(ctx, l.want)
	if err != nil {
		return err.Error()
	}
	if ops := netstate.Diff(l.state, state); len(ops) > 0 {
		return ops[0].String()
	}
	if l.table != nil {
		table, err := l.nft.Read(nft.INet, nft.TableName)
		if err != nil {
			return err.Error()
		}
		for _, op := range nft.Diff(*l.table, table) {
			// The edge check takes packets of a peer that is gone for half a minute longer.
			if !strings.HasPrefix(op.String(), "delete element inet weft edge-") {
				return op.String()
			}
		}
	}
	if l.text != nil {
		if rules, err := l.text(); err != nil || rules != l.rules {
			return fmt.Sprintf("iptables: %v\n%s\nnot\n%s", err, rules, l.rules)
		}
	}
	return ""
}

// watch looks until stopped.
func (l *look) watch(ctx context.Context) *watcher {
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			begun := time.Now()
			what := l.differs(ctx)
			if ctx.Err() != nil {
				return
			}
			w.mu.Lock()
			switch {
			case what != "":
				w.bad, w.good, w.what = time.Now(), nil, what
			default:
				w.good = append(w.good, begun)
			}
			w.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}()
	return w
}

// since returns when all was as it should be again after an injury whose command ran between the times, once that has lasted; ok is false
// when it is not yet so. A repair between two looks counts until the next look, so no time is too short.
func (w *watcher) since(begun, injured time.Time) (at time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const lasting = 60 * time.Millisecond
	for _, at := range w.good {
		if w.bad.After(begun) || at.After(injured) {
			return at, time.Since(at) > lasting && time.Since(injured) > lasting
		}
	}
	return time.Time{}, false
}

func (w *watcher) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.what
}

func (w *watcher) end() {
	w.stop()
	<-w.done
}

// parametersOf are the kernel parameters in what "weft state" prints.
func parametersOf(state string) netstate.State {
	out := netstate.New()
	for line := range strings.Lines(state) {
		if o, err := netstate.ParseLine(strings.TrimSpace(line)); err == nil && o.Kind() == netstate.KindSysctl {
			out.Add(o)
		}
	}
	return out
}
