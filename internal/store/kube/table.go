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

var _ cache.ReflectorStore = (*table[metav1.Object, int])(nil)

func keyOf(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// Add takes a new object of the watch.
func (t *table[T, V]) Add(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected %T in the watch", obj)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(keyOf(o), t.convert(o))
	return nil
}

// Update takes a changed object of the watch.
func (t *table[T, V]) Update(obj any) error { return t.Add(obj) }

// Delete takes the last state of an object that is gone.
func (t *table[T, V]) Delete(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected %T in the watch", obj)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(keyOf(o))
	return nil
}

// Replace takes a whole list.
func (t *table[T, V]) Replace(list []any, _ string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[string]bool, len(list))
	for _, obj := range list {
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("unexpected %T in the list", obj)
		}
		seen[keyOf(o)] = true
		t.put(keyOf(o), t.convert(o))
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
