package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"weft/internal/agent/loop"
	"weft/internal/attach"
	"weft/internal/kernel"
	"weft/internal/netstate"
)

// podDuty makes a pod that changes its own network all the time cost at most a twentieth of the time.
const podDuty = 20

// podNet is the inside of one pod, watched: it costs two sockets, five goroutines and some 40 KB.
type podNet struct {
	pod  attach.Pod
	log  *slog.Logger
	stop context.CancelFunc

	mu    sync.Mutex // one step at a time
	net   *kernel.Netns
	want  netstate.State
	done  bool // want was found or made
	fresh bool // by the step before the loop's first
	err   error
	again chan struct{} // receives when the host's loop could not do what the pod's loop then tries again
}

// convergePods brings the inside of each pod whose plan changed to it. What fails there is the pod's: its own loop goes on with it, and the
// host's network does not wait.
func (d *Loop) convergePods(ctx context.Context, inPod map[string]netstate.State) (ops int) {
	pods := d.pods.List()
	for uid := range d.inside {
		if !slices.ContainsFunc(pods, func(p attach.Pod) bool { return p.UID == uid }) {
			d.drop(uid)
		}
	}
	for _, p := range pods {
		// A pod whose namespace is gone is the node's to remove.
		if _, err := os.Stat(p.Netns); errors.Is(err, os.ErrNotExist) {
			d.drop(p.UID)
			continue
		}
		n := d.inside[p.UID]
		if n != nil && n.pod.Netns != p.Netns {
			d.drop(p.UID)
			n = nil
		}
		if n == nil {
			n = d.enter(p)
		}
		ops += n.take(ctx, inPod[p.UID])
	}
	return ops
}

// enter opens a pod's namespace and watches it.
func (d *Loop) enter(p attach.Pod) *podNet {
	n := &podNet{pod: p, log: d.log, stop: func() {}, again: make(chan struct{}, 1)}
	d.inside[p.UID] = n
	if d.life == nil {
		return n
	}
	ctx, stop := context.WithCancel(d.life)
	n.stop = stop
	changed, err := n.open(ctx)
	if err != nil {
		n.err = err
	}
	l := loop.Loop{
		Name: "pod " + p.Namespace + "/" + p.Name, Step: n.step, Every: loop.FullCheck, Duty: podDuty, Healing: d.healing, Log: d.log,
		Triggers: []loop.Trigger{loop.On(n.again, loop.ByPlan)},
	}
	if changed != nil {
		l.Triggers = append(l.Triggers, loop.On(changed, loop.ByKernel))
	}
	d.spawn(func() error {
		defer n.close()
		return l.Run(ctx)
	})
	return n
}

// open opens the namespace, and watches it until ctx ends.
func (n *podNet) open(ctx context.Context) (changed <-chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.net, err = kernel.Open(n.pod.Netns); err != nil {
		return nil, err
	}
	return n.net.Watch(ctx)
}

func (n *podNet) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.net != nil {
		_ = n.net.Close() // of a namespace that is no longer ours to look at
		n.net = nil
	}
}

// take makes want the pod's plan and brings it about, when it is another one or the veth pair is new.
func (n *podNet) take(ctx context.Context, want netstate.State) (ops int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done && netstate.Equal(n.want, want) {
		return 0
	}
	n.want = want
	done, err := n.converge(ctx, nil)
	n.fresh = true
	if err != nil {
		loop.Poke(n.again)
	}
	return len(done)
}

// renew makes take look though the plan is the same: the veth pair was made anew.
func (n *podNet) renew() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = false
}

// step is the body of the pod's own loop. What the pod adds for itself, addresses say, is left to it.
func (n *podNet) step(ctx context.Context, due loop.Cause) (loop.Work, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fresh && due == loop.ByTime {
		n.fresh = false
		return loop.Work{}, n.err
	}
	if n.want.Len() == 0 {
		return loop.Work{}, nil
	}
	if _, err := os.Stat(n.pod.Netns); errors.Is(err, os.ErrNotExist) {
		n.stop() // a watch would keep the namespace alive
		return loop.Work{}, nil
	}
	whole := n.done
	var g gap
	done, err := n.converge(ctx, n.hold(&g))
	w := loop.Work{Ops: len(done)}
	repaired := func(name string) {
		if whole {
			w.Repaired = append(w.Repaired, "pod "+n.pod.Namespace+"/"+n.pod.Name+" "+name)
		}
	}
	if g.stray != "" {
		name := g.missing
		g = gap{last: n.net == nil || n.net.Rename(ctx, g.stray, name) != nil}
		if !g.last {
			repaired("link " + name)
			w.Ops++
		}
		var more []netstate.Op
		more, err = n.converge(ctx, n.hold(&g))
		done = append(done, more...)
		w.Ops += len(more)
	}
	n.done = n.done && g.missing == ""
	for _, op := range done {
		repaired(nameOf(op.Object))
	}
	return w, err
}

// gap is an interface of the plan that is not there under its name.
type gap struct {
	missing, stray string // the planned name, and the one under which it is there after all; "" for none
	last           bool   // it can't get its name back
}

// hold returns the ops that the pod's own loop leaves out: those on objects that the pod added for itself, and those on an interface that is
// not there. A link of ours that is not planned is ours, renamed: it gets its name back, with all that is on it. When that can't be it goes,
// which takes the host's end of the pair along, and the host's loop makes another pair.
func (n *podNet) hold(g *gap) func(netstate.Op) bool {
	return func(op netstate.Op) bool {
		if l, ok := op.Object.(netstate.Link); ok {
			switch {
			case op.Verb == netstate.Add:
				g.missing = l.Name
				return true
			case op.Verb == netstate.Del && l.Owned() && g.missing != "" && !g.last:
				g.stray = l.Name
				return true
			}
			return op.Verb == netstate.Del && !l.Owned()
		}
		_, wanted := n.want.Get(netstate.IDOf(op.Object))
		return !wanted || g.missing != ""
	}
}

func (n *podNet) converge(ctx context.Context, hold func(netstate.Op) bool) ([]netstate.Op, error) {
	target := n.net
	if target == nil {
		var err error
		if target, err = kernel.Open(n.pod.Netns); err != nil {
			n.done, n.err = false, fmt.Errorf("pod %s/%s: %w", n.pod.Namespace, n.pod.Name, err)
			return nil, n.err
		}
		defer target.Close()
	}
	ops, err := converge(ctx, target, n.want, hold)
	logOps(n.log, "pod "+n.pod.Namespace+"/"+n.pod.Name, ops)
	if err != nil {
		err = fmt.Errorf("pod %s/%s: %w", n.pod.Namespace, n.pod.Name, err)
	}
	n.done, n.err = err == nil, err
	return ops, err
}

// state says whether the plan was found or made, and why not.
func (n *podNet) state() (done bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.done, n.err
}

// drop lets go of a pod.
func (d *Loop) drop(uid string) {
	if n := d.inside[uid]; n != nil {
		n.stop()
		delete(d.inside, uid)
	}
}

// attached says whether the inside of a pod is as planned, and why not.
func (d *Loop) attached(uid string) (done bool, err error) {
	if n := d.inside[uid]; n != nil {
		return n.state()
	}
	return false, nil
}

// podTrouble is the first pod's error.
func (d *Loop) podTrouble() string {
	for _, p := range d.pods.List() {
		if _, err := d.attached(p.UID); err != nil {
			return err.Error()
		}
	}
	return ""
}

// forget marks pods whose veth pair was made anew: their inside is gone with the old pair.
func (d *Loop) forget(ops []netstate.Op) {
	made := map[string]bool{}
	for _, op := range ops {
		if op.Object.Kind() == netstate.KindLink {
			made[op.Object.Key()] = true
		}
	}
	for uid, n := range d.inside {
		if made[attach.HostInterface(uid)] {
			n.renew()
		}
	}
}
