package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store/etcd"
)

// errNotReady says that hosts did not take part in a change of the backend in time.
var errNotReady = errors.New("not all hosts are ready")

// change puts a configuration in force. Where that changes how packets travel between hosts it takes three writes: first all hosts get
// ready to receive by the new backend, then they send by it, and when all do, they close the old one. Each write is decided on what the
// store says then, so a change that was interrupted is continued by the next call.
type change struct {
	client  *etcd.Client
	data    []byte
	want    lease.Config
	force   bool
	dryRun  bool
	timeout time.Duration
	say     io.Writer // progress

	said  string
	since time.Time // of the wait that said is about
}

// step is what is to be done next.
type step struct {
	write   []byte   // nil: wait
	waiting []string // hosts that are waited for
	total   int
	what    string // of progress and dry run
	last    bool   // nothing is left to do after the write
	note    string // what the operator should know of the write
	err     error
}

// pollEvery is how often the leases are looked at during a change.
const pollEvery = 100 * time.Millisecond

func (c *change) run(ctx context.Context) (changed bool, err error) {
	for {
		s, err := c.client.List(ctx)
		if err != nil {
			return changed, err
		}
		next := c.next(s)
		if next.err != nil {
			return changed, next.err
		}
		if c.dryRun {
			c.explain(next)
			return false, nil
		}
		if next.write == nil && !c.wait(next) {
			return changed, fmt.Errorf("%s: %w after %s: %s: start what is down there and run this again, which continues; --force goes on without them",
				next.what, errNotReady, c.timeout, few(next.waiting))
		}
		if next.write != nil {
			config := configOf(s)
			if bytes.Equal(config.Value, next.write) {
				return changed, nil
			}
			c.warn(next.note)
			done, err := c.client.SwapConfig(ctx, next.write, config.Modified, s.Revision)
			if err != nil {
				return changed, err
			}
			changed = changed || done
			if done && next.last {
				return true, nil
			}
			continue // or somebody came or went meanwhile
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return changed, ctx.Err()
		case <-timer.C:
		}
	}
}

func configOf(s claim.Snapshot) claim.Entry {
	for _, e := range s.Entries {
		if e.Key == claim.ConfigKey {
			return e
		}
	}
	return claim.Entry{}
}

// next decides by what the store holds.
func (c *change) next(s claim.Snapshot) step {
	if moving := etcd.Misfits(c.want, s); len(moving) > 0 && !c.force {
		return step{err: fmt.Errorf("%w: %s: delete them or use --force", etcd.ErrInUse, few(moving))}
	}
	final := step{write: c.data, last: true, what: "write the configuration"}
	old := configOf(s)
	now, _, err := lease.ParseConfig(old.Value)
	byHand := c.want.Change != "" || c.want.Next.Type != "" || c.want.Previous.Type != ""
	if err != nil || byHand {
		return final // nothing good is in force, or the operator makes each step
	}
	var view claim.View
	view.Reset(s, time.Time{})
	hosts, _ := view.Peers(api.Lease{}, nil)
	switch {
	case lease.SameKind(now.Backend, c.want.Backend) && now.Previous.Type == "":
		return final
	case lease.SameKind(now.Backend, c.want.Backend):
		return c.unless(hosts, final, fmt.Sprintf("leave backend %s", now.Previous.Type), func(l api.Lease) bool {
			return lease.Sends(l, now.Backend, now.Change)
		})
	case now.Beside(c.want.Backend) != nil:
		final.note = fmt.Sprintf("each host changes by itself, and packets may be lost meanwhile: %v", now.Beside(c.want.Backend))
		return final
	case len(hosts) == 0 || !now.Backend.Preparable() || !c.want.Backend.Preparable():
		return final
	}
	return c.phase(old.Value, now, hosts)
}

// phase is the next step of a change between two backends that hosts can get ready for.
func (c *change) phase(old []byte, now lease.Config, hosts []api.Lease) step {
	if now.Next == c.want.Backend {
		flip := step{what: fmt.Sprintf("put backend %s in force", c.want.Backend.Type)}
		flip.write, flip.err = lease.Leaving(c.data, old, now.Change)
		return c.unless(hosts, flip, fmt.Sprintf("prepare backend %s", c.want.Backend.Type), func(l api.Lease) bool {
			return lease.Receives(l, c.want.Backend, now.Change)
		})
	}
	prepare := step{what: fmt.Sprintf("prepare backend %s on %d hosts", c.want.Backend.Type, len(hosts))}
	prepare.write, prepare.err = lease.Preparing(old, c.data, newChange())
	if now.Previous.Type == "" || lease.SameKind(now.Previous, c.want.Backend) {
		return prepare
	}
	return c.unless(hosts, prepare, fmt.Sprintf("finish the change from %s to %s", now.Previous.Type, now.Backend.Type), func(l api.Lease) bool {
		return lease.Sends(l, now.Backend, now.Change)
	})
}

// unless is the step when all hosts have done what is waited for, else a wait for those that have not.
func (c *change) unless(hosts []api.Lease, then step, what string, done func(api.Lease) bool) step {
	w := step{what: what, total: len(hosts)}
	silent := slices.DeleteFunc(slices.Clone(hosts), func(l api.Lease) bool {
		return done(l) || lease.Announces(l, c.want.Backend)
	})
	for _, l := range hosts {
		if done(l) {
			continue
		}
		// Hosts that only wait for others are not worth a word while there are others.
		if len(silent) == 0 || !lease.Announces(l, c.want.Backend) {
			w.waiting = append(w.waiting, hostName(l))
		}
	}
	if len(w.waiting) == 0 || c.force && c.said == what && time.Since(c.since) > c.timeout {
		return then
	}
	return w
}

func hostName(l api.Lease) string {
	at := l.PublicIP
	if !at.IsValid() {
		at = l.PublicIPv6
	}
	return fmt.Sprintf("%s (lease %s)", at, lease.Key(l))
}

// wait says what is waited for, when that is news, and whether there is time left.
func (c *change) wait(s step) bool {
	if c.said != s.what {
		c.said, c.since = s.what, time.Now()
		fmt.Fprintf(c.say, "%s: waiting for %d of %d hosts\n", s.what, len(s.waiting), s.total)
	}
	return c.force || time.Since(c.since) <= c.timeout
}

// warn says once what the operator should know.
func (c *change) warn(note string) {
	if note != "" && c.said != note {
		c.said = note
		fmt.Fprintf(c.say, "warning: %s\n", note)
	}
}

// explain is the dry run.
func (c *change) explain(s step) {
	if s.write == nil {
		fmt.Fprintf(c.say, "would %s: waiting for %d of %d hosts: %s\n", s.what, len(s.waiting), s.total, few(s.waiting))
		return
	}
	fmt.Fprintf(c.say, "would %s\n", s.what)
	c.warn(s.note)
	if !s.last {
		fmt.Fprintf(c.say, "and go on until backend %s is in force on all hosts and the one before is closed\n", c.want.Backend.Type)
	}
}

func newChange() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// few lists at most five.
func few(all []string) string {
	if len(all) > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:5], ", "), len(all)-5)
	}
	return strings.Join(all, ", ")
}

// progress is what a lease says of a change under way, "" when there is none.
func progress(c lease.Config, l api.Lease) string {
	switch {
	case c.Next.Type != "" && lease.Receives(l, c.Next, c.Change):
		return "receives by " + c.Next.Type
	case c.Next.Type != "" && lease.Announces(l, c.Next):
		return "waits for the others"
	case c.Next.Type != "":
		return "does not receive by " + c.Next.Type
	case c.Previous.Type != "" && lease.Sends(l, c.Backend, c.Change):
		return "sends by " + c.Backend.Type
	case c.Previous.Type != "":
		return "has not taken it up"
	}
	return ""
}
