package kube

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// table is what a reflector fills: the converted form V of every object T of one kind, by "namespace/name". It tells of a change only
// when the converted form changed, so that a heartbeat wakes nobody.
type table[T metav1.Object, V any] struct {
	mu      *sync.Mutex // guards the table and whatever changed touches
	convert func(T) V
	changed func(key string, before, after V, gone bool) // called with mu held
	listed  func()                                       // called with mu held, after every successful list
	rows    map[string]V
}

var _ cache.TransformingStore = (*table[metav1.Object, int])(nil)

// converted is what the reflector keeps of an object while it streams the first list: the objects themselves would be many times as much.
type converted[V any] struct {
	namespace, name string
	value           V
}

// GetObjectMeta lets the reflector know the object's key.
func (c *converted[V]) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: c.namespace, Name: c.name}
}

// Transformer is called by the reflector for each object of a streamed list.
func (t *table[T, V]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(T); ok {
			return &converted[V]{o.GetNamespace(), o.GetName(), t.convert(o)}, nil
		}
		return obj, nil
	}
}

// take returns the key and the converted form of an object of the API, or of one converted before.
func (t *table[T, V]) take(obj any) (key string, v V, err error) {
	switch o := obj.(type) {
	case T:
		return keyOf(o), t.convert(o), nil
	case *converted[V]:
		return o.namespace + "/" + o.name, o.value, nil
	}
	return "", v, fmt.Errorf("unexpected %T from the API", obj)
}

func keyOf(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// Add takes a new object of the watch.
func (t *table[T, V]) Add(obj any) error {
	key, v, err := t.take(obj)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(key, v)
	return nil
}

// Update takes a changed object of the watch.
func (t *table[T, V]) Update(obj any) error { return t.Add(obj) }

// Delete takes the last state of an object that is gone.
func (t *table[T, V]) Delete(obj any) error {
	key, _, err := t.take(obj)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(key)
	return nil
}

// Replace takes a whole list.
func (t *table[T, V]) Replace(list []any, _ string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[string]bool, len(list))
	for _, obj := range list {
		key, v, err := t.take(obj)
		if err != nil {
			return err
		}
		seen[key] = true
		t.put(key, v)
	}
	for _, key := range slices.Collect(maps.Keys(t.rows)) {
		if !seen[key] {
			t.drop(key)
		}
	}
	t.listed()
	return nil
}

// Resync has nothing to do: nobody is behind the table.
func (t *table[T, V]) Resync() error { return nil }

func (t *table[T, V]) put(key string, v V) {
	before, had := t.rows[key]
	if had && reflect.DeepEqual(before, v) {
		return
	}
	t.rows[key] = v
	t.changed(key, before, v, false)
}

func (t *table[T, V]) drop(key string) {
	before, had := t.rows[key]
	if !had {
		return
	}
	delete(t.rows, key)
	var none V
	t.changed(key, before, none, true)
}

// sorted returns the rows in the order of their keys.
func (t *table[T, V]) sorted() []V {
	out := make([]V, 0, len(t.rows))
	for _, key := range slices.Sorted(maps.Keys(t.rows)) {
		out = append(out, t.rows[key])
	}
	return out
}

// signal is a coalesced wake-up.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) poke() {
	select {
	case s <- struct{}{}:
	default:
	}
}
