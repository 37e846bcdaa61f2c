package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// lookPeriod is how often everything is looked at without anything having told to.
const lookPeriod = 10 * time.Second

// program runs the node's pods: a worker for each.
type program struct {
	config *Config
	watch  *observer
	log    *slog.Logger

	mu      sync.Mutex
	workers map[string]*worker // by pod UID
	wg      sync.WaitGroup
}

func newProgram(c *Config) *program {
	return &program{config: c, watch: newObserver(c.Runtime), log: c.Log, workers: map[string]*worker{}}
}

// run gives every pod its worker and wakes workers when something may have changed, until ctx ends. The pods run on.
func (n *program) run(ctx context.Context) error {
	defer n.wg.Wait()
	tick := time.NewTicker(lookPeriod)
	defer tick.Stop()
	n.pods(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.config.Pods.Changed():
			n.pods(ctx)
		case <-n.config.Runtime.Changed():
			n.watch.invalidate()
			n.wakeAll()
		case <-tick.C:
			n.watch.invalidate()
			n.pods(ctx)
			n.wakeAll()
		}
	}
}

// pods hands the API's pods to their workers. Only when they were listed is a pod that is not among them gone.
func (n *program) pods(ctx context.Context) {
	pods, listed := n.config.Pods.Pods()
	if !listed {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	seen := map[string]bool{}
	for _, p := range pods {
		uid := string(p.UID)
		seen[uid] = true
		if w := n.workers[uid]; w != nil {
			w.update(p)
		} else {
			n.start(ctx, newWorker(n, p))
		}
	}
	for uid, w := range n.workers {
		if !seen[uid] {
			w.leave()
		}
	}
	n.orphans(ctx, seen)
}

// orphans gives a worker to every sandbox whose pod is gone, to end it. Callers hold n.mu.
func (n *program) orphans(ctx context.Context, pods map[string]bool) {
	boxes, err := n.watch.all(ctx)
	if err != nil {
		n.log.Warn("sandboxes not listed, will be tried again", "err", err)
		return
	}
	for uid, box := range boxes {
		if pods[uid] || n.workers[uid] != nil {
			continue
		}
		n.log.Info("pod is gone from the API, ending its sandbox", "pod", box.Namespace+"/"+box.Name, "uid", uid)
		p := &corev1.Pod{}
		p.Namespace, p.Name, p.UID = box.Namespace, box.Name, podUID(uid)
		p.Spec.HostNetwork = box.HostNetwork
		for _, c := range box.Containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image})
		}
		w := newWorker(n, p)
		w.gone = true
		n.start(ctx, w)
	}
}

// start runs a worker until it has nothing more to do. Callers hold n.mu.
func (n *program) start(ctx context.Context, w *worker) {
	n.workers[w.uid] = w
	n.wg.Go(func() {
		w.run(ctx)
		n.mu.Lock()
		defer n.mu.Unlock()
		if ctx.Err() == nil {
			delete(n.workers, w.uid)
		}
	})
}

func (n *program) wakeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.workers {
		w.poke()
	}
}
