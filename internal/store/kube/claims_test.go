package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestContestedAddress is an external address that two services name: one has it whole, and the other when the first is gone.
func TestContestedAddress(t *testing.T) {
	w := newWatch()
	put := func(name, cluster string) *corev1.Service {
		t.Helper()
		s := service(t, fmt.Sprintf(`"clusterIP":%q,"externalIPs":["192.0.2.1"],"ports":[{"port":80}]`, cluster), "")
		s.Name = name
		if err := w.services.Add(s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	expect := func(when, want string) {
		t.Helper()
		var got []string
		snap := w.Snapshot()
		for _, s := range snap.Services {
			got = append(got, fmt.Sprint(s.Name.Name, s.External))
		}
		got = append(got, snap.Problems...)
		if text := strings.Join(got, "; "); text != want {
			t.Errorf("%s: %s, want %s", when, text, want)
		}
	}
	put("b", "10.254.0.2")
	expect("alone", "b[192.0.2.1]")
	a := put("a", "10.254.0.1")
	expect("contested", "a[192.0.2.1]; b[]; service ns/b: does not get address 192.0.2.1:80 (TCP): it is ns/a:'s; give one of the two another")
	if err := w.services.Delete(a); err != nil {
		t.Fatal(err)
	}
	expect("the first gone", "b[192.0.2.1]")
}

// TestTriggered: a Feed tells when the changes began that it brings, each once, and none of those before it.
func TestTriggered(t *testing.T) {
	w := newWatch()
	s := testService(1, 80)
	put := func(at time.Time, endpoints ...int) {
		t.Helper()
		e := testSlice(s, "-a", endpoints...)
		e.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: at.Format(time.RFC3339Nano)}
		if err := w.slices.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.services.Add(s); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	put(old, 1)
	f := w.Feed()
	if got := f.Snapshot().Changes.Triggered; len(got) > 0 {
		t.Errorf("before the feed: %v", got)
	}
	put(old.Add(time.Minute), 2)
	now := time.Now().Add(time.Second).UTC()
	put(now, 3)
	put(now, 4) // another change of which nothing new is said
	if got := f.Snapshot().Changes.Triggered; len(got) != 1 || !got[0].Equal(now) {
		t.Errorf("triggered %v, want %v", got, now)
	}
	if got := f.Snapshot().Changes.Triggered; len(got) > 0 {
		t.Errorf("again: %v", got)
	}
}
