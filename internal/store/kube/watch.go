package kube

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"weft/internal/api"
	"weft/internal/proxy"
)

// Back-off of a list or watch that fails: an API server that comes back is used again within retryMax.
const (
	retryFirst = 200 * time.Millisecond
	retryMax   = 5 * time.Second
	retrySteps = 6
)

// Watch keeps an api.Snapshot current. While the API is away the last known state stays.
type Watch struct {
	mu       sync.Mutex
	nodes    table[*corev1.Node, api.Node]
	pods     table[*corev1.Pod, api.Pod]
	services table[*corev1.Service, []api.ServicePort]
	slices   table[*discoveryv1.EndpointSlice, slice]

	bySvc  map[string][]string // service key -> keys of its slices, sorted
	ports  portList            // of all services but the dirty ones
	fed    bool                // ports is a Feed's, else it is shared with those who asked for snapshots
	dirty  map[string]bool     // service keys whose ports are stale
	snap   *api.Snapshot       // nil when stale
	lean   *api.Snapshot       // without services, nil when stale
	claims proxy.Claims        // of the services, as they want them

	serviceChanges, sliceChanges changes

	triggers []time.Time // when changes of endpoints began that the Feed does not know yet
	fedSince time.Time

	unlisted map[string]bool // kinds that were never listed
	synced   chan struct{}
	changed  signal // anything
	moved    signal // nodes or pods
}

// WatchOptions says what a Watch holds besides nodes and services.
type WatchOptions struct {
	PodsOf string // only the pods bound to this node, as a node's identity may read; "" for all pods
}

// Watch starts to keep a snapshot of the cluster until ctx ends. It returns at once; see Synced.
func (s *Store) Watch(ctx context.Context, o WatchOptions) *Watch {
	w := newWatch()
	podFields := fields.Everything()
	if o.PodsOf != "" {
		podFields = fields.OneTermEqualSelector("spec.nodeName", o.PodsOf)
	}
	follow(ctx, s, s.core, "nodes", fields.Everything(), &corev1.NodeList{}, &corev1.Node{}, &w.nodes)
	follow(ctx, s, s.core, "pods", podFields, &corev1.PodList{}, &corev1.Pod{}, &w.pods)
	follow(ctx, s, s.core, "services", fields.Everything(), &corev1.ServiceList{}, &corev1.Service{}, &w.services)
	follow(ctx, s, s.discovery, "endpointslices", fields.Everything(), &discoveryv1.EndpointSliceList{},
		&discoveryv1.EndpointSlice{}, &w.slices)
	return w
}

func newWatch() *Watch {
	w := &Watch{
		bySvc: map[string][]string{}, dirty: map[string]bool{},
		unlisted: map[string]bool{}, synced: make(chan struct{}), changed: newSignal(), moved: newSignal(),
	}
	w.nodes = newTable(w, "nodes", convertNode)
	w.nodes.changed = func(string, api.Node, api.Node, bool) { w.objectChanged() }
	w.pods = newTable(w, "pods", convertPod)
	w.pods.changed = func(string, api.Pod, api.Pod, bool) { w.objectChanged() }
	w.services = newTable(w, "services", convertService)
	w.services.changed = w.serviceChanged
	w.slices = newTable(w, "endpointslices", convertSlice)
	w.slices.changed = w.sliceChanged
	return w
}

func newTable[T metav1.Object, V any](w *Watch, kind string, convert func(T) V) table[T, V] {
	w.unlisted[kind] = true
	return table[T, V]{mu: &w.mu, convert: convert, rows: map[string]V{}, listed: func() { w.listed(kind) }}
}

func (w *Watch) objectChanged() {
	w.lean = nil
	w.moved.poke()
	w.stale()
}

// serviceChanged has the service merged anew, and those that get more or less of what they claim because of it.
func (w *Watch) serviceChanged(key string, before, after []api.ServicePort, _ bool) {
	w.serviceChanges.note()
	w.dirty[key] = true
	w.stale()
	for _, n := range w.claims.Set(before, after) {
		w.dirty[n.Namespace+"/"+n.Name] = true
	}
}

func (w *Watch) sliceChanged(key string, before, after slice, gone bool) {
	if before.service != "" && (gone || before.service != after.service) {
		keys := w.bySvc[before.service]
		if i, ok := slices.BinarySearch(keys, key); ok {
			keys = slices.Delete(keys, i, i+1)
		}
		if w.bySvc[before.service] = keys; len(keys) == 0 {
			delete(w.bySvc, before.service)
		}
		w.dirty[before.service] = true
	}
	if !gone && after.service != "" {
		keys := w.bySvc[after.service]
		if i, ok := slices.BinarySearch(keys, key); !ok {
			w.bySvc[after.service] = slices.Insert(keys, i, key)
		}
		w.dirty[after.service] = true
	}
	if w.sliceChanges.note(); after.trigger != before.trigger {
		w.triggered(after.trigger)
	}
	w.stale()
}

// maxTriggers bounds the times that are kept for a reader who does not ask.
const maxTriggers = 10_000

// triggered keeps when a change of endpoints began; those before everything was listed say nothing of how long it takes.
func (w *Watch) triggered(at string) {
	if at == "" || !w.fed || len(w.triggers) >= maxTriggers {
		return
	}
	if t, err := time.Parse(time.RFC3339Nano, at); err == nil && t.After(w.fedSince) {
		w.triggers = append(w.triggers, t)
	}
}

func (w *Watch) stale() {
	w.snap = nil
	w.changed.poke()
}

func (w *Watch) listed(kind string) {
	if !w.unlisted[kind] {
		return
	}
	delete(w.unlisted, kind)
	if len(w.unlisted) == 0 {
		close(w.synced)
		w.changed.poke()
		w.moved.poke()
	}
}

// Changed receives after the snapshot changed; changes that nobody took yet are one.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Moved receives after nodes or pods changed, and not for services.
func (w *Watch) Moved() <-chan struct{} { return w.moved }

// Synced is closed when everything has been listed once. Before that, a Snapshot lacks objects: do not delete by it.
func (w *Watch) Synced() <-chan struct{} { return w.synced }

// Snapshot returns the cluster as last known, sorted by namespace and name, without leases (they are the lease store's). It is
// shared: do not change what it holds.
func (w *Watch) Snapshot() api.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.snap == nil {
		services := w.ports.with(w.merge())
		if !w.fed {
			w.ports = services
			clear(w.dirty)
		}
		w.snap = &api.Snapshot{Nodes: w.objects().Nodes, Pods: w.objects().Pods, Services: services, Problems: w.problems()}
	}
	return *w.snap
}

// Objects is a Snapshot without services, at no cost when only those changed.
func (w *Watch) Objects() api.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.objects()
}

func (w *Watch) objects() *api.Snapshot {
	if w.lean == nil {
		w.lean = &api.Snapshot{Nodes: w.nodes.sorted(), Pods: w.pods.sorted()}
	}
	return w.lean
}

// problems says which services do not get what they claim.
func (w *Watch) problems() []string {
	var out []string
	for _, c := range w.claims.Conflicts() {
		out = append(out, c.String())
	}
	return out
}

// merge returns the ports of the services that changed, by key; none for one that is gone.
func (w *Watch) merge() map[string][]api.ServicePort {
	out := make(map[string][]api.ServicePort, len(w.dirty))
	for key := range w.dirty {
		out[key] = nil
		if skeleton := w.services.rows[key]; len(skeleton) > 0 {
			var parts []slice
			for _, k := range w.bySvc[key] {
				parts = append(parts, w.slices.rows[k])
			}
			out[key] = merge(skeleton, parts)
			for i := range out[key] {
				out[key][i] = w.claims.Share(out[key][i])
			}
		}
	}
	return out
}

// follow starts a reflector that lists and watches a resource of all namespaces into store until ctx ends.
func follow[L runtime.Object](ctx context.Context, s *Store, c *rest.RESTClient, resource string, sel fields.Selector,
	list L, example runtime.Object, store cache.ReflectorStore,
) {
	params := runtime.NewParameterCodec(s.scheme)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = sel.String()
			into := list.DeepCopyObject()
			err := c.Get().Resource(resource).VersionedParams(&o, params).Do(ctx).Into(into)
			s.reach.note(resource, s.clear(err))
			return into, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector, o.Watch = sel.String(), true
			stream, err := c.Get().Resource(resource).VersionedParams(&o, params).Watch(ctx)
			if ctx.Err() == nil {
				s.reach.note(resource, s.clear(err))
			}
			return stream, err
		},
	}
	quiet := logr.Discard() // reach logs, once
	r := cache.NewReflectorWithOptions(lw, example, store, cache.ReflectorOptions{
		Logger: &quiet, Name: "weft/" + resource,
		Backoff: &wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 0.2, Steps: retrySteps, Cap: retryMax},
	})
	go r.RunWithContext(klog.NewContext(ctx, quiet))
}
