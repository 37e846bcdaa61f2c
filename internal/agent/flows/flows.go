// Package flows forgets the UDP flows in connection tracking that lead where the rules of services no longer would.
//
// Floor 4, programs.
package flows

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	"weft/internal/kernel/conntrack"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
)

// Table is kernel/conntrack as the agent uses it.
type Table interface {
	List(q conntrack.Query) ([]conntrack.Flow, error)
	Walks(q conntrack.Query) int
	Delete(flows []conntrack.Flow) (int, error)
}

// nodePortRange is the API server's default of --service-node-port-range. It matters for services that went while no agent ran.
var nodePortRange = [2]uint16{30000, 32767}

// secondLook is how long after a change its flows are looked at again, at least, and twice that at most: a packet that met the old rules may
// have been under way.
const secondLook = time.Second

// In a table of many flows each look is a walk through all of it. So that changes without end share looks, these may take one in lookShare of
// the time, and lookBurst at once; until then no change waits but for a look under way.
const (
	lookShare = 3
	lookBurst = 300 * time.Millisecond
)

// settleLimit bounds how long a look waits for rules that change.
const settleLimit = 10 * time.Second

// Keeper deletes the connection tracking entries of UDP flows that lead where the rules no longer would.
type Keeper struct {
	log   *slog.Logger
	table Table
	wake  chan struct{}
	spent func() time.Duration // processor time of run's thread

	mu      sync.Mutex
	mode    facts.ProxyMode // "" before the first update
	facts   facts.Facts
	list    rules.ServiceList // that known is about
	known   proxy.Flows
	ports   userspace.Ports         // that the relay held
	touched map[proxy.Frontend]bool // since the last look
	orphans bool                    // look for those of services that are no longer known, too
	deleted int
	settled chan struct{} // while rules change that are not known yet; closed when they are
}

// New returns a keeper of the flows of the table; Run runs it.
func New(log *slog.Logger, table Table) *Keeper {
	return &Keeper{log: log, table: table, wake: make(chan struct{}, 1), spent: threadTime, touched: map[proxy.Frontend]bool{}}
}

// update notes the services whose rules are in the kernel now. Ports are those the relay holds. The cost is that of the services
// that changed; in another mode than before all of them did.
func (k *Keeper) update(f facts.Facts, services []api.ServicePort, ports userspace.Ports) {
	k.Follow(f, api.Snapshot{Services: services}, ports)
}

// Follow is update with a snapshot that may tell what changed.
func (k *Keeper) Follow(f facts.Facts, snap api.Snapshot, ports userspace.Ports) {
	services := snap.Services
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settle()
	if k.mode != f.ProxyMode {
		k.mode, k.list, k.known, k.orphans = f.ProxyMode, rules.ServiceList{}, proxy.Flows{}, true
	}
	gone, fresh, ok := k.list.Next(services, snap.Changes)
	if !ok {
		k.known, k.orphans = proxy.Flows{}, true
	}
	if !ok || !maps.Equal(ports, k.ports) {
		fresh = services // a port changed, maybe of a service that did not
	}
	k.ports = ports
	k.facts = f
	var touched []proxy.Frontend
	for _, s := range gone {
		touched = append(touched, k.known.Remove(s)...)
	}
	for _, s := range fresh {
		// A flow of the mode before goes on as it is: to an endpoint that serves, or to the relay as long as that has its listener.
		touched = append(touched, k.known.Set(s, append(proxy.Serving(s), relayAddrs(s, ports)...))...)
	}
	for _, x := range touched {
		k.touched[x] = true
	}
	if len(k.touched) > 0 || k.orphans {
		loop.Poke(k.wake)
	}
}

// Expect says that rules are about to change: until follow says how, flows may lead where nothing known says they may, and none is deleted.
func (k *Keeper) Expect() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.settled == nil {
		k.settled = make(chan struct{})
	}
}

// settle ends what expect began.
func (k *Keeper) settle() {
	if k.settled != nil {
		close(k.settled)
		k.settled = nil
	}
}

// await waits until it is known where flows that were listed before may lead, and reports whether it is. Rules that change after that are of no
// concern for them.
func (k *Keeper) await() bool {
	k.mu.Lock()
	settled := k.settled
	k.mu.Unlock()
	if settled == nil {
		return true
	}
	t := time.NewTimer(settleLimit)
	defer t.Stop()
	select {
	case <-settled:
		return true
	case <-t.C:
		return false
	}
}

// postpone notes a look for when the rules are known.
func (k *Keeper) postpone(due look) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.Copy(k.touched, due.touched)
	k.orphans = k.orphans || due.orphans
}

// relayAddrs are the addresses of the relay's listeners for a service: its ports, on any address of the node.
func relayAddrs(s api.ServicePort, ports userspace.Ports) []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range userspace.Listeners(proxy.Node{}, s, ports) {
		if p := l.Addr.Port(); p != 0 {
			out = append(out, netip.AddrPortFrom(netip.Addr{}, p))
		}
	}
	return out
}

// Run looks whenever something changed, and once more a little later.
func (k *Keeper) Run(ctx context.Context) error {
	runtime.LockOSThread() // what looks cost is this thread's time
	defer runtime.UnlockOSThread()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	var twice second
	var until time.Time // looks have had their share of the time until then
	for {
		var due look
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
			due = k.take()
			if twice.empty() {
				again.Reset(secondLook)
			}
			due = twice.with(due, k.table)
		case <-again.C:
			var wait time.Duration
			if due, wait = twice.share(k.table); wait >= 0 {
				again.Reset(wait)
			}
		}
		begun, used := time.Now(), k.spent()
		if n, err := k.clean(due); n > 0 || err != nil {
			k.log.Info("forgot flows of UDP services that led elsewhere", "flows", n, "err", err)
		}
		if until.Before(begun) {
			until = begun
		}
		until = until.Add(lookShare * (k.spent() - used))
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(until) - lookBurst):
		}
	}
}

// threadTime is the processor time that the calling thread has used.
func threadTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// second is what is to be looked at once more: what changed since it was last asked for, and what changed before that.
type second struct{ older, newer look }

func (s *second) empty() bool { return s.older.empty() && s.newer.empty() }

// with notes a first look for later, and adds to it what second looks are due, if all of it takes one walk through the table.
func (s *second) with(due look, t Table) look {
	s.newer.add(due)
	var both look
	both.add(due)
	both.add(s.older)
	if walks(both, t) > 1 {
		return due
	}
	s.older = look{}
	return both
}

// share takes from the second looks that are due what takes one walk through the table: first looks shall not wait for more than that. It
// returns in how long there are more, less than 0 when there are none.
func (s *second) share(t Table) (due look, wait time.Duration) {
	due = s.older
	if walks(due, t) > 1 {
		for x := range s.older.touched {
			due = look{touched: map[proxy.Frontend]bool{x: true}}
			break
		}
		maps.DeleteFunc(s.older.touched, func(x proxy.Frontend, _ bool) bool { return due.touched[x] })
		return due, 0
	}
	s.older, s.newer = s.newer, look{}
	if s.empty() {
		return due, -1
	}
	return due, secondLook
}

// walks is how many walks through the table a look takes, of one family.
func walks(l look, t Table) (n int) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if to, some := l.destinations(family); some {
			n = max(n, t.Walks(query(family, to)))
		}
	}
	return n
}

func query(family uint8, to []netip.AddrPort) conntrack.Query {
	return conntrack.Query{Family: family, Protocol: unix.IPPROTO_UDP, To: to}
}

// look is what to look at.
type look struct {
	touched map[proxy.Frontend]bool
	orphans bool
}

func (l look) empty() bool { return len(l.touched) == 0 && !l.orphans }

func (l *look) add(m look) {
	if l.touched == nil {
		l.touched = make(map[proxy.Frontend]bool, len(m.touched))
	}
	maps.Copy(l.touched, m.touched)
	l.orphans = l.orphans || m.orphans
}

// destinations are where flows of the family lead that are to be looked at, none standing for all of them; some is false when there is nothing to
// look at.
func (l look) destinations(family uint8) (to []netip.AddrPort, some bool) {
	if l.orphans {
		return nil, true
	}
	for x := range l.touched {
		if !x.Addr.IsValid() || x.Addr.Is6() == (family == unix.AF_INET6) {
			to = append(to, netip.AddrPortFrom(x.Addr, x.Port))
		}
	}
	return to, len(to) > 0
}

func (k *Keeper) take() look {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := look{k.touched, k.orphans}
	k.touched, k.orphans = map[proxy.Frontend]bool{}, false
	return l
}

// clean deletes the stale flows to what is due, and returns their number.
func (k *Keeper) clean(due look) (int, error) {
	if due.empty() {
		return 0, nil
	}
	local, err := hostAddrs()
	if err != nil {
		return 0, err
	}
	var errs []error
	n := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		to, some := due.destinations(family)
		if !some {
			continue
		}
		all, err := k.table.List(query(family, to))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !k.await() {
			k.postpone(due) // follow wakes us
			continue
		}
		deleted, err := k.table.Delete(k.stale(all, due, local))
		n += deleted
		errs = append(errs, err)
	}
	k.mu.Lock()
	k.deleted += n
	k.mu.Unlock()
	return n, errors.Join(errs...)
}

// hostAddrs are the host's addresses now, of all its interfaces.
func hostAddrs() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	out := make(map[netip.Addr]bool, len(all))
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr().Unmap()] = true
		}
	}
	return out, nil
}

func (k *Keeper) stale(all []conntrack.Flow, due look, addrs map[netip.Addr]bool) []conntrack.Flow {
	k.mu.Lock()
	defer k.mu.Unlock()
	local := func(a netip.Addr) bool { return a.IsLoopback() || addrs[a] }
	services, pods := facts.Valid(k.facts.ServiceRange), k.facts.PodNetworks()
	return slices.DeleteFunc(all, func(f conntrack.Flow) bool {
		if k.mode != facts.Userspace && f.To == f.Answerer && f.To.Addr().IsLoopback() {
			return true // to the relay, or to a program of the host: no rule has a say in it
		}
		stale := k.known.Stale(f.To, f.Answerer, due.touched, local) ||
			due.orphans && f.Translated() && k.known.Orphan(f.To, f.Answerer, services, pods, nodePortRange, local)
		return !stale
	})
}

// Count is how many flows were deleted since the start.
func (k *Keeper) Count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.deleted
}
