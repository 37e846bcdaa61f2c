package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/kernel/probe"
	"weft/internal/lease"
)

// public is what the flags and the node's annotations say of the addresses to publish. The annotations are of this node alone and may
// change while the agent runs, so they count more than the flags, which often are the same on all nodes.
type public struct {
	use, publish [2]netip.Addr // of IPv4 and IPv6; use must not be the interface's own, but is taken as its first address if it is
}

// public returns what is asked for now. An annotation that can't be read counts as if it were not there, and is reported once.
func (a *agent) public() public {
	p := public{use: a.cfg.Underlay.Public()}
	asked, err := a.annotatedPublic()
	if err != nil {
		if err.Error() != a.badPublic {
			a.log.Warn("public address not taken from the node's annotation", "err", err)
		}
		a.badPublic = err.Error()
		return p
	}
	a.badPublic = ""
	for i, ip := range [2]netip.Addr{asked.Use, asked.UseV6} {
		if ip.IsValid() {
			p.use[i] = ip
		}
	}
	p.publish = [2]netip.Addr{asked.Publish, asked.PublishV6}
	return p
}

// annotatedPublic reads the node's annotations, which flannel's users know from clusters whose leases are the nodes' annotations too.
func (a *agent) annotatedPublic() (lease.Public, error) {
	if a.watch == nil || !a.cfg.KubeSubnetManager {
		return lease.Public{}, nil
	}
	select {
	case <-a.watch.Synced():
	default:
		return lease.Public{}, nil
	}
	return ownPublic(a.watch.Objects(), a.cfg.NodeName, a.cfg.AnnotationPrefix)
}

func ownPublic(snap api.Snapshot, node, prefix string) (lease.Public, error) {
	for _, n := range snap.Nodes {
		if n.Name == node {
			return lease.PublicFromNode(n, prefix)
		}
	}
	return lease.Public{}, nil
}

// into puts the published addresses into the facts.
func (p public) into(f *facts.Facts) {
	for i, to := range [2]*netip.Addr{&f.PublicIP, &f.PublicIPv6} {
		want := p.publish[i]
		if !want.IsValid() {
			want = p.use[i]
		}
		if want != f.Addr(i == 1) {
			*to = want
		}
	}
}

// annotationsWait is how long the start waits for the node's annotations, without which the leases are not known either.
const annotationsWait = 5 * time.Second

// lookAgain looks at the host once more when the node's annotations, which may choose the address, are known.
func (a *agent) lookAgain(ctx context.Context, f facts.Facts) (facts.Facts, error) {
	if !a.cfg.KubeSubnetManager {
		return f, nil
	}
	limit := time.NewTimer(annotationsWait)
	defer limit.Stop()
	select {
	case <-ctx.Done():
		return f, ctx.Err()
	case <-limit.C:
		return f, nil // they are followed when they come
	case <-a.watch.Synced():
		return a.look()
	}
}

// watchPublic pokes changed when the node's annotations ask for other addresses.
func (a *agent) watchPublic(ctx context.Context, cluster <-chan struct{}, changed chan struct{}) error {
	var before lease.Public
	wrong := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-cluster:
			if !ok {
				return nil
			}
		}
		now, err := a.annotatedPublic()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if now != before || text != wrong {
			before, wrong = now, text
			loop.Poke(changed)
		}
	}
}

// underlayEvery is how often an agent that waits for its underlay says so though nothing changed.
const underlayEvery = time.Minute

// startWait is how long an agent that starts waits for its underlay before it gives up with an error. One that runs waits for ever.
const startWait = 30 * time.Second

// waitUnderlay looks until the underlay is there: an interface may come, get its address or its name after the agent's start.
func (a *agent) waitUnderlay(ctx context.Context, look func() (facts.Facts, error)) (facts.Facts, error) {
	f, err := look()
	if !errors.Is(err, probe.ErrNoUnderlay) {
		return f, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	changed, werr := probe.Watch(ctx, a.cfg.Underlay.Chosen())
	if werr != nil {
		return f, werr
	}
	deadline := time.NewTimer(startWait)
	defer deadline.Stop()
	said := reporting{log: a.log}
	for {
		f, err = look() // again after the watch began: nothing is missed
		if !errors.Is(err, probe.ErrNoUnderlay) {
			return f, err
		}
		said.say(time.Now(), err, "waiting for the underlay")
		select {
		case <-ctx.Done():
			return f, ctx.Err()
		case <-deadline.C:
			return f, fmt.Errorf("after %s: %w", startWait, err)
		case <-changed:
		}
	}
}

// underlayGone is said of a host whose underlay is not there, or lacks an address that the network needs.
const underlayGone = "the underlay is gone: everything stays as it is until it is back"

// errNoNetwork says that the store holds no network configuration.
var errNoNetwork = errors.New("no network configuration")

// lookUnder is the setting of the host as it is now under the network's configuration.
func (a *agent) lookUnder(ctx context.Context) (facts.Setting, error) {
	f, err := a.look()
	if err != nil {
		return facts.Setting{}, err
	}
	c, ok := a.network()
	if !ok {
		return facts.Setting{}, errNoNetwork
	}
	next, err := a.configure(ctx, f, c)
	if err != nil && !errors.Is(err, probe.ErrNoUnderlay) {
		err = fmt.Errorf("the network's configuration is not taken up: %w", err)
	}
	return next, err
}

// configureAtStart waits for an underlay that has the addresses the network needs, and returns the setting.
func (a *agent) configureAtStart(ctx context.Context, c lease.Config) (next facts.Setting, err error) {
	_, err = a.waitUnderlay(ctx, func() (facts.Facts, error) {
		f, err := a.look()
		if err == nil {
			next, err = a.configure(ctx, f, c)
		}
		return f, err
	})
	return next, err
}

// shownAddr is the address by which the log shows the host.
func shownAddr(f facts.Facts) netip.Addr {
	if a := f.Addr(false); a.IsValid() {
		return a
	}
	return f.Addr(true)
}

// doubt logs what of the network's configuration the host does not follow as it is written, each once.
func (a *agent) doubt(f facts.Facts) {
	now := ways.Doubts(f)
	for _, text := range now {
		if !slices.Contains(a.doubted, text) {
			a.log.Warn(text)
		}
	}
	a.doubted = now
}

// stuckAt notes why the host or the configuration is not followed, for who asks for the status.
func (a *agent) stuckAt(why string) { a.stuck.Store(&why) }

// underlayWarnings are what "weft status" says of the underlay and the configuration.
func (a *agent) underlayWarnings() []string {
	out := ways.Doubts(a.settings.Facts())
	if why := a.stuck.Load(); why != nil {
		out = append(out, *why)
	}
	return out
}

// reporting says an error when it is a new one, at most one line a second, and the same one again after a while.
type reporting struct {
	log  *slog.Logger
	text string
	at   time.Time
}

func (r *reporting) say(now time.Time, err error, what string) {
	since := now.Sub(r.at)
	if err.Error() == r.text && since < underlayEvery || since < time.Second {
		return
	}
	r.text, r.at = err.Error(), now
	r.log.Warn(what, "err", err)
}
