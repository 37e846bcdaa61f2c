package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/rundir"
	"weft/internal/agent/ways"
	"weft/internal/lease"
	"weft/internal/overlay"
	"weft/internal/store/kube"
)

// registering is how long the node's object, which is about to be made, is waited for before the next look.
const registering = 100 * time.Millisecond

// announce writes subnet.env once the data path stands, and publishes the node's facts, whenever the lease or the facts changed.
func (a *agent) announce(ctx context.Context, changed ...loop.Trigger) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.data.Ready():
	}
	published, pods, again := "", "", make(chan struct{}, 1)
	l := loop.Loop{Name: "announce", Every: 5 * time.Minute, Log: a.log, Triggers: append(changed, loop.On(again, loop.ByHost))}
	l.Step = func(ctx context.Context, due loop.Cause) (loop.Work, error) {
		if due&loop.ByTime != 0 {
			pods = ""
		}
		err1 := a.writeSubnetEnv()
		a.subnetEnv.wrote(err1)
		text, err2 := a.settings.Facts().JSON()
		if err2 == nil && (text != published || due&loop.ByTime != 0) {
			switch err2 = a.publishFacts(ctx, text); {
			case err2 == nil:
				published = text
			case errors.Is(err2, kube.ErrNotFound): // the node is about to register
				err2 = nil
				time.AfterFunc(registering, func() { loop.Poke(again) })
			}
		}
		err3 := a.publishPods(ctx, &pods)
		if errors.Is(err3, kube.ErrNotFound) {
			err3 = nil // as above, which comes again
		}
		return loop.Work{}, errors.Join(err1, err2, err3)
	}
	return l.Run(ctx)
}

// envFile is how the last writing of subnet.env went. Whoever waits for the agent wants to read the file next (weft docker-opts, a CNI
// plugin), so that the agent has not converged without it.
type envFile struct {
	mu   sync.Mutex
	done bool
	err  string
}

func (f *envFile) wrote(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done, f.err = err == nil, ""
	if err != nil {
		f.err = err.Error()
	}
}

// state reports whether the file says what it should, and if not, why: "" is that nobody tried yet.
func (f *envFile) state() (written bool, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done, f.err
}

// writeSubnetEnv writes the file other programs read, when it says something else than it should.
func (a *agent) writeSubnetEnv() error {
	stored, ok := a.leases.Own()
	if !ok {
		return nil
	}
	s := a.settings.Get()
	b, err := ways.Backend(s.Backend)
	if err != nil {
		return err
	}
	own := s.Own(stored)
	e := lease.SubnetEnv{
		Network: s.Network, IPv6Network: s.NetworkV6, Subnet: own.Subnet, IPv6Subnet: own.SubnetV6,
		MTU: overlay.MTU(b, s.Facts.Self(own)), IPMasq: s.Facts.IPMasq,
	}
	old, err := os.ReadFile(a.cfg.SubnetFile)
	if err == nil && string(old) == e.Render() {
		return nil
	}
	if err := rundir.WriteFile(a.cfg.SubnetFile, []byte(e.Render()), 0o644); err != nil {
		return fmt.Errorf("--subnet-file: %w", err)
	}
	return nil
}

func (a *agent) publishFacts(ctx context.Context, text string) error {
	if a.kube == nil {
		return nil
	}
	if err := a.kube.AnnotateNode(ctx, a.cfg.NodeName, map[string]*string{facts.Annotation: &text}); err != nil {
		return fmt.Errorf("publish the node's facts: %w", err)
	}
	return nil
}
