package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Limits of what a node tells: an object that repeats itself may not fill the API server.
const (
	eventQueue  = 256              // events not written yet; more are dropped
	eventMemory = 1024             // different events remembered for counting
	eventWindow = 10 * time.Minute // repeats within it are counted, later ones are new
	eventBurst  = 25               // writes of one object at once...
	eventRefill = 30 * time.Second // ...and then one in this time
	eventRetry  = time.Second      // while the API is away
)

// Recorder writes events in the background. A repeated event raises the first one's count.
type Recorder struct {
	store  *Store
	source corev1.EventSource
	queue  chan corev1.Event
	known  map[eventKey]*known
	budget map[types.UID]*budget
	seq    int64
}

type eventKey struct {
	object                  corev1.ObjectReference
	kind, reason, component string
	message                 string
}

type known struct {
	namespace, name string
	count           int32
	last            time.Time
}

type budget struct {
	left float64
	at   time.Time
}

// Events starts a recorder that writes until ctx ends. component and host are what kubectl shows as the events' source.
func (s *Store) Events(ctx context.Context, component, host string) *Recorder {
	r := &Recorder{
		store: s, source: corev1.EventSource{Component: component, Host: host}, queue: make(chan corev1.Event, eventQueue),
		known: map[eventKey]*known{}, budget: map[types.UID]*budget{},
	}
	go r.run(ctx)
	return r
}

// Event records that something happened to an object. kind is Normal or Warning, reason a CamelCase word, message a sentence for
// people. It never blocks; when too much happens at once, events are dropped.
func (r *Recorder) Event(object corev1.ObjectReference, kind, reason, message string) {
	e := corev1.Event{InvolvedObject: object, Type: kind, Reason: reason, Message: message, LastTimestamp: metav1.Now()}
	select {
	case r.queue <- e:
	default:
	}
}

func (r *Recorder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.queue:
			if !r.afford(e.InvolvedObject.UID, e.LastTimestamp.Time) {
				continue
			}
			if err := r.insist(ctx, e); err != nil && ctx.Err() == nil {
				r.store.log.Debug("event not written", "reason", e.Reason, "err", err)
			}
		}
	}
}

// insist writes an event, again and again while no API answers: what happens meanwhile waits in the queue.
func (r *Recorder) insist(ctx context.Context, e corev1.Event) error {
	tick := time.NewTicker(eventRetry)
	defer tick.Stop()
	for {
		err := r.write(ctx, e)
		if !errors.Is(r.store.clear(err), ErrUnreachable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (r *Recorder) write(ctx context.Context, e corev1.Event) error {
	key := eventKey{object: e.InvolvedObject, kind: e.Type, reason: e.Reason, component: r.source.Component, message: e.Message}
	key.object.ResourceVersion = ""
	now := e.LastTimestamp.Time
	r.forget(now)
	if k, ok := r.known[key]; ok {
		err := r.recount(ctx, k, e.LastTimestamp)
		if err == nil {
			k.count++
			k.last = now
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		delete(r.known, key) // expired on the server
	}
	k := &known{namespace: e.InvolvedObject.Namespace, count: 1, last: now}
	if k.namespace == "" {
		k.namespace = metav1.NamespaceDefault
	}
	r.seq++
	k.name = fmt.Sprintf("%s.%x", e.InvolvedObject.Name, now.UnixNano()+r.seq)
	e.ObjectMeta = metav1.ObjectMeta{Namespace: k.namespace, Name: k.name}
	e.Source, e.ReportingController, e.ReportingInstance = r.source, r.source.Component, r.source.Host
	e.Count, e.FirstTimestamp = 1, e.LastTimestamp
	if err := r.store.core.Post().Namespace(k.namespace).Resource("events").Body(&e).Do(ctx).Error(); err != nil {
		return err
	}
	r.known[key] = k
	return nil
}

func (r *Recorder) recount(ctx context.Context, k *known, at metav1.Time) error {
	patch, err := json.Marshal(map[string]any{"count": k.count + 1, "lastTimestamp": at})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	return r.store.core.Patch(types.MergePatchType).Namespace(k.namespace).Resource("events").Name(k.name).Body(patch).Do(ctx).Error()
}

// afford is a token bucket for each object.
func (r *Recorder) afford(uid types.UID, now time.Time) bool {
	b := r.budget[uid]
	if b == nil {
		if len(r.budget) >= eventMemory {
			clear(r.budget)
		}
		b = &budget{left: eventBurst, at: now}
		r.budget[uid] = b
	}
	b.left = min(eventBurst, b.left+float64(now.Sub(b.at))/float64(eventRefill))
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// forget drops what was not repeated for a window, and everything when the memory is full.
func (r *Recorder) forget(now time.Time) {
	if len(r.known) >= eventMemory {
		clear(r.known)
	}
	for key, k := range r.known {
		if now.Sub(k.last) > eventWindow {
			delete(r.known, key)
		}
	}
}
