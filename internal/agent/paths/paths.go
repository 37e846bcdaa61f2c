// Package paths measures the MTU of the paths to the other nodes and confirms it now and then.
//
// Floor 4, programs.
package paths

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/rundir"
	"weft/internal/api"
	"weft/internal/kernel/pmtu"
)

// Limits of --mtu-probe.
const (
	minProbe = time.Second
	maxProbe = time.Hour
)

// CheckProbe checks --mtu-probe.
func CheckProbe(every time.Duration) error {
	if every != 0 && (every < minProbe || every > maxProbe) {
		return fmt.Errorf("--mtu-probe=%s: want 0 (off), or %s to %s", every, minProbe, maxProbe)
	}
	return nil
}

const (
	// fullSearch is every how many confirmations a narrow path is searched anew: it may have become a little wider.
	fullSearch = 20
	// probesAtOnce and probeGap bound what is under way, so that thousands of peers cost little.
	probesAtOnce = 8
	probeGap     = 20 * time.Millisecond
	// lookGap and lookEach (for each peer) bound how often the list of peers is looked through: programming the kernel comes first.
	lookGap = time.Second
	// lookEach is for each peer.
	lookEach = time.Millisecond
)

// prober sends packets of given sizes to other hosts.
type prober interface {
	Path(ctx context.Context, to netip.Addr, ceiling int) (int, error)
	Larger(ctx context.Context, to netip.Addr, small, large int) int
}

// Paths knows the MTUs of the paths to the other nodes. The nil paths knows of none.
type Paths struct {
	log     *slog.Logger
	every   time.Duration
	file    string // remembers the narrow ones for the next start
	Changed chan struct{}

	mu    sync.Mutex
	known map[netip.Addr]*path
	queue dueQueue
	over  underlayFacts
}

// path is what is known of the path to one address.
type path struct {
	node   string
	mtu    int // bytes, 0: not known yet
	silent int // times that nothing was answered, in a row
	rounds int // since the last full search
	due    time.Time
	busy   bool
}

// underlayFacts are those that all measurements depend on.
type underlayFacts struct {
	dev     string
	mtu     int
	addrs   [2]netip.Addr
	gateway netip.Addr
}

// New returns what the file remembers of paths, confirmed every so often; nil, which knows of none, when every is 0.
func New(log *slog.Logger, every time.Duration, file string) (*Paths, error) {
	if every == 0 {
		return nil, nil //nolint:nilnil // paths that knows of none
	}
	p := &Paths{log: log, every: every, file: file, Changed: make(chan struct{}, 1), known: map[netip.Addr]*path{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is known of paths: %w", err)
	}
	narrow := map[netip.Addr]int{}
	if err := json.Unmarshal(text, &narrow); err != nil {
		log.Warn("what was known of paths is lost", "file", file, "err", err)
	}
	for a, mtu := range narrow {
		if a.IsValid() && mtu >= pmtu.Floor && mtu <= 65535 {
			p.known[a] = &path{mtu: mtu}
		}
	}
	return p, nil
}

// Narrow returns the paths that are narrower than the interface's MTU in bytes, nil when there are none.
func (p *Paths) Narrow(mtu int) map[netip.Addr]int {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out map[netip.Addr]int
	for a, x := range p.known {
		if x.mtu > 0 && x.mtu < mtu {
			if out == nil {
				out = map[netip.Addr]int{}
			}
			out[a] = x.mtu
		}
	}
	return out
}

// Peers are the addresses of the other nodes that the node can send to, with the nodes' names.
func Peers(f facts.Facts, own api.Lease, all []api.Lease) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, l := range all {
		if l.Subnet == own.Subnet && l.SubnetV6 == own.SubnetV6 {
			continue
		}
		for _, a := range [2]netip.Addr{l.PublicIP, l.PublicIPv6} {
			if a.IsValid() && !a.IsUnspecified() && !f.Holds(a) && f.Addr(a.Is6()).IsValid() {
				out[a] = l.Node
			}
		}
	}
	return out
}

// sync takes up who there is to send to. What was measured over another underlay is measured anew; until then it is believed.
func (p *Paths) sync(now time.Time, f facts.Facts, peers map[netip.Addr]string) {
	over := underlayFacts{f.Dev, f.MTU, [2]netip.Addr{f.Addr(false), f.Addr(true)}, f.Gateway}
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.known {
		if _, ok := peers[a]; !ok {
			delete(p.known, a)
		}
	}
	for a, node := range peers {
		x := p.known[a]
		if x == nil {
			x = &path{}
			p.known[a] = x
			p.plan(a, x, now.Add(spread(time.Second)))
		}
		x.node = node
		if p.over != over {
			x.rounds, x.silent = fullSearch, 0
			p.plan(a, x, now.Add(spread(time.Second)))
		}
	}
	p.over = over
}

// spread is a random part of d.
func spread(d time.Duration) time.Duration { return rand.N(d) + 1 }

// interval is how often one path is looked at: with many, less often.
func (p *Paths) interval() time.Duration {
	return max(p.every, time.Duration(len(p.known))*probeGap)
}

// job is one path to measure.
type job struct {
	to            netip.Addr
	have, ceiling int
	full          bool
}

// take returns the path that is due first, or how long none is.
func (p *Paths) take(now time.Time) (j job, wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to, x := p.first()
	if x == nil {
		return job{}, time.Hour, false
	}
	if wait := x.due.Sub(now); wait > 0 {
		return job{}, wait, false
	}
	if p.over.mtu == 0 {
		return job{}, time.Second, false
	}
	x.busy = true
	return job{to: to, have: min(x.mtu, p.over.mtu), ceiling: p.over.mtu, full: x.mtu == 0 || x.rounds >= fullSearch}, 0, true
}

// measure returns the path's MTU in bytes, or pmtu.ErrSilent.
func (j job) measure(ctx context.Context, p prober) (int, error) {
	if !j.full {
		if got := p.Larger(ctx, j.to, j.have, j.ceiling); got > 0 {
			return got, nil
		}
	}
	return p.Path(ctx, j.to, j.ceiling)
}

// learn takes in what was measured and reports whether a path's MTU changed.
func (p *Paths) learn(now time.Time, j job, mtu int, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.known[j.to]
	if x == nil {
		return false // the node left meanwhile
	}
	x.busy = false
	if j.ceiling != p.over.mtu {
		p.plan(j.to, x, now) // it was another underlay
		return false
	}
	every := p.interval()
	if err != nil {
		// A host that is down or answers no echo request is asked ever less often; what was known of its path stays.
		x.silent++
		p.plan(j.to, x, now.Add(every<<min(x.silent-1, 4)+spread(every/4)))
		return false
	}
	p.plan(j.to, x, now.Add(every-every/8+spread(every/4)))
	x.silent = 0
	x.rounds++
	if j.full {
		x.rounds = 0
	}
	before := x.mtu
	x.mtu = mtu
	was, is := before > 0 && before < j.ceiling, mtu < j.ceiling
	switch {
	case before == mtu, !was && !is:
		return false
	case is:
		p.log.Warn("the path to a node is narrower than the interface", "node", x.node, "address", j.to, "mtu", mtu, "interface", j.ceiling)
	default:
		p.log.Info("the path to a node carries what the interface does", "node", x.node, "address", j.to, "mtu", mtu)
	}
	return true
}

// remember writes the narrow paths down.
func (p *Paths) remember() {
	p.mu.Lock()
	mtu := p.over.mtu
	p.mu.Unlock()
	b, err := json.Marshal(p.Narrow(mtu))
	if err == nil {
		err = rundir.WriteFile(p.file, b, 0o644)
	}
	if err != nil {
		p.log.Warn("what is known of paths is not remembered", "err", err)
	}
}

// Run measures until ctx ends. Triggers are loop.ByPlan when peers may have changed, which can wait a little, loop.ByHost when the underlay may have.
func (p *Paths) Run(ctx context.Context, with prober, look func() (facts.Facts, map[netip.Addr]string, bool), triggers ...loop.Trigger) error {
	in := loop.Listen(ctx, triggers)
	in.Set(loop.ByHost)
	var rest time.Time // before this the leases of others are not looked at
	var under sync.WaitGroup
	defer under.Wait()
	slots := make(chan struct{}, probesAtOnce)
	for ctx.Err() == nil {
		now := time.Now()
		if due := in.Causes(); due&^loop.ByPlan != 0 || due != 0 && !rest.After(now) {
			in.Set(0)
			if f, peers, ok := look(); ok {
				p.sync(now, f, peers)
				rest = now.Add(max(lookGap, time.Duration(len(peers))*lookEach))
			}
		}
		var j job
		wait, ok := time.Hour, false
		if len(slots) < cap(slots) { // else the first that ends wakes
			j, wait, ok = p.take(now)
		}
		if in.Causes() != 0 {
			wait = min(wait, max(0, rest.Sub(now)))
		}
		if ok {
			wait = probeGap
			slots <- struct{}{}
			under.Go(func() {
				defer func() { <-slots; in.Nudge() }()
				mtu, err := j.measure(ctx, with)
				if p.learn(time.Now(), j, mtu, err) {
					p.remember()
					loop.Poke(p.Changed)
				}
			})
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-pauseOr(ok, in.Woken()):
		}
		timer.Stop()
	}
	return nil
}

// pauseOr is the channel, or none while a pause is kept.
func pauseOr(pause bool, ch <-chan struct{}) <-chan struct{} {
	if pause {
		return nil
	}
	return ch
}
