package leases

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/overlay"
)

// unspoken is the kind of a refusal: the peer announces a backend that this node does not use.
const unspoken = "backend"

// lookEach is the part of each lease in how long the list of all rests between two looks.
const lookEach = time.Millisecond

// Pathless are the leases that the store takes for good and that get no path all the same.
type Pathless struct {
	mu  sync.Mutex
	now []Refused
}

// Get returns the refusals as last found.
func (p *Pathless) Get() []Refused {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// set takes the refusals of now and returns those that are new.
func (p *Pathless) set(now []Refused) []Refused {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := slices.DeleteFunc(slices.Clone(now), func(r Refused) bool { return slices.Contains(p.now, r) })
	p.now = now
	return fresh
}

// Store is the store of leases.
type Store interface {
	Own() (api.Lease, bool)
	Leases() []api.Lease
}

// Watch reports leases without a path. It looks a moment after each change, of which the channels tell, in a large network that changes all the
// time more seldom: programming the kernel comes first.
func (p *Pathless) Watch(ctx context.Context, log *slog.Logger, from Store, under *facts.InForce, leases, settings <-chan struct{}) error {
	const longest = 10 * time.Second
	moment := time.Second
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-leases:
		case <-settings:
		}
		loop.Pause(ctx, moment)
		stored, ok := from.Own()
		if !ok {
			continue
		}
		s, all := under.Get(), from.Leases()
		moment = min(max(time.Second, time.Duration(len(all))*lookEach), longest)
		now, err := pathlessOf(s, s.Own(stored), all)
		if err != nil {
			continue // the loop that plans says so
		}
		for _, r := range p.set(now) {
			log.Warn("lease refused: "+r.Reason, "key", r.Lease, "value", r.Value)
		}
	}
}

// pathlessOf lists the leases that no way leads to, as the backends decide it.
func pathlessOf(s facts.Setting, own api.Lease, all []api.Lease) ([]Refused, error) {
	used, err := ways.Of(s.Facts, own, all)
	if err != nil {
		return nil, err
	}
	peers, refused := overlay.Peers(s.Facts.Self(own), all)
	var out []Refused
	for _, r := range refused {
		out = append(out, Refused{Lease: lease.Key(r.Lease), Kind: r.Kind, Reason: r.String(), Value: valueOf(r.Lease)})
	}
	for _, l := range peers {
		kinds := lease.Kinds(l)
		if why := ways.Unreached(s.Facts, used, l); why != "" {
			reason := fmt.Sprintf("lease %s of %s: %s", lease.Key(l), cmp.Or(l.Node, publicOf(l)), why)
			out = append(out, Refused{Lease: lease.Key(l), Kind: overlay.Unreachable, Reason: reason, Value: valueOf(l)})
			continue
		}
		if !slices.ContainsFunc(kinds, func(k lease.Kind) bool { return ways.Reach(s.Facts, used, k) }) {
			reason := fmt.Sprintf("lease %s of %s: BackendType: %q is not used here, where the network's is %q: "+
				"no packet goes there until both ends agree", lease.Key(l), cmp.Or(l.Node, publicOf(l)), ways.KindOf(s.Facts, kinds[0]).Type, s.Backend)
			out = append(out, Refused{Lease: lease.Key(l), Kind: unspoken, Reason: reason, Value: valueOf(l)})
		}
	}
	slices.SortFunc(out, func(a, b Refused) int { return cmp.Compare(a.Lease, b.Lease) })
	return out, nil
}

func valueOf(l api.Lease) string {
	data, err := lease.Marshal(l)
	if err != nil {
		return ""
	}
	return string(data)
}

func publicOf(l api.Lease) string {
	if l.PublicIP.IsValid() {
		return l.PublicIP.String()
	}
	return l.PublicIPv6.String()
}
