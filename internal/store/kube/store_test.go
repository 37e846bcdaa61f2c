package kube

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		"":                         "--kubeconfig",
		filepath.Join(dir, "none"): "no such file or directory",
		file("empty", ""):          "current-context is empty",
		file("garbage", "{{"):      "parse kubeconfig",
		file("context", `{"apiVersion":"v1","kind":"Config","current-context":"x"}`): "context was not found for specified context: x",
	} {
		_, err := Open(path, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Open(%s): %v, want one line with %q", path, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	f := newFakeAPI(t)
	other := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	if err := f.open(t).Check(ctx); err != nil {
		t.Errorf("good server: %v", err)
	}
	f.set(func() { f.status = http.StatusUnauthorized })
	if err := f.open(t).Check(ctx); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "401") {
		t.Errorf("refused token: %v", err)
	}
	for server, want := range map[string]error{
		"https://127.0.0.1:1":                               ErrUnreachable,
		strings.Replace(f.URL, "127.0.0.1", "localhost", 1): ErrUntrusted, // the certificate does not name it
	} {
		s, err := Open(f.kubeconfig(t, server), nil)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Check(ctx)
		if !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v", server, err, want)
		}
	}
}

const (
	nodesPath  = "/api/v1/nodes"
	podsPath   = "/api/v1/pods"
	svcPath    = "/api/v1/services"
	slicesPath = "/apis/discovery.k8s.io/v1/endpointslices"

	nodeA   = `{"kind":"Node","apiVersion":"v1","metadata":{"name":"a"},"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:00:00Z"}]}}`
	svcWeb  = `{"kind":"Service","apiVersion":"v1","metadata":{"namespace":"ns","name":"web"},"spec":{"clusterIP":"10.254.0.9","ports":[{"port":80}]}}`
	sliceA  = `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"namespace":"ns","name":"web-a","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"port":8080}],"endpoints":[{"addresses":["10.1.0.2"]}]}`
	sliceAB = `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"namespace":"ns","name":"web-a","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"port":8080}],"endpoints":[{"addresses":["10.1.0.2"]},{"addresses":["10.1.0.3"]}]}`
	podX    = `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"ns","name":"x","uid":"u"},"spec":{"nodeName":"a"},"status":{"podIP":"10.1.0.2","phase":"Running"}}`
)

func (f *fakeAPI) fill() {
	f.lists[nodesPath], f.lists[podsPath] = []string{nodeA}, []string{podX}
	f.lists[svcPath], f.lists[slicesPath] = []string{svcWeb}, []string{sliceA}
}

func TestWatch(t *testing.T) {
	f := newFakeAPI(t)
	f.fill()
	w := f.open(t).Watch(t.Context(), WatchOptions{PodsOf: "a"})
	select {
	case <-w.Synced():
	case <-time.After(time.Minute):
		t.Fatal("not synced")
	}
	all := []string{nodesPath, podsPath, svcPath, slicesPath}
	eventually(t, "watches", f.watched(all...))
	snap := w.Snapshot()
	if len(snap.Nodes) != 1 || !snap.Nodes[0].Ready || len(snap.Pods) != 1 || text(snap.Services) != "ns/web: TCP [10.254.0.9]:80 [10.1.0.2:8080rs]" {
		t.Fatalf("snapshot %+v", snap)
	}
	drain(w)

	// A heartbeat is no change.
	f.send(nodesPath, "MODIFIED", strings.Replace(nodeA, "2026-01-01", "2026-01-02", 1))
	f.send(slicesPath, "MODIFIED", sliceAB)
	eventually(t, "second endpoint", func() bool {
		return text(w.Snapshot().Services) == "ns/web: TCP [10.254.0.9]:80 [10.1.0.2:8080rs 10.1.0.3:8080rs]"
	})
	if len(snap.Services[0].Endpoints) != 1 {
		t.Error("a snapshot in use changed")
	}
	drain(w)
	f.send(nodesPath, "MODIFIED", strings.Replace(nodeA, "2026-01-01", "2026-01-03", 1))
	f.send(podsPath, "DELETED", podX) // comes later; the one wake-up is for it
	select {
	case <-w.Changed():
	case <-time.After(time.Minute):
		t.Fatal("no wake-up")
	}
	eventually(t, "pod gone", func() bool { return len(w.Snapshot().Pods) == 0 })

	// The API goes away: what is known stays. It comes back changed: what is known follows.
	f.set(func() { f.status = http.StatusServiceUnavailable })
	f.hangUp()
	time.Sleep(50 * time.Millisecond)
	if got := w.Snapshot(); len(got.Services) != 1 || len(got.Services[0].Endpoints) != 2 {
		t.Errorf("last known state lost: %+v", got)
	}
	f.set(func() {
		f.status, f.version = 0, f.version+100
		f.lists[svcPath] = []string{}
		f.lists[slicesPath] = []string{sliceAB}
	})
	eventually(t, "service gone", func() bool { return len(w.Snapshot().Services) == 0 })
	eventually(t, "watches again", f.watched(all...)) // a list that is under way would not be hung up
	f.set(func() { f.version++; f.lists[svcPath] = []string{svcWeb} })
	f.hangUp()
	eventually(t, "service back", func() bool { s := w.Snapshot().Services; return len(s) == 1 && len(s[0].Endpoints) == 2 })
}

func drain(w *Watch) {
	select {
	case <-w.Changed():
	default:
	}
}

// TestNotListed: before the first list nothing may be taken for gone.
func TestNotListed(t *testing.T) {
	f := newFakeAPI(t)
	f.fill()
	f.set(func() { f.status = http.StatusForbidden })
	s := f.open(t)
	w, p := s.Watch(t.Context(), WatchOptions{}), s.WatchPods(t.Context(), "a")
	time.Sleep(100 * time.Millisecond)
	select {
	case <-w.Synced():
		t.Error("synced without a list")
	default:
	}
	if _, listed := p.Pods(); listed {
		t.Error("listed without a list")
	}
	f.set(func() { f.status = 0 })
	eventually(t, "pods listed", func() bool { pods, listed := p.Pods(); return listed && len(pods) == 1 && pods[0].Name == "x" })
}

func TestNodeWrites(t *testing.T) {
	f := newFakeAPI(t)
	s := f.open(t)
	node := &corev1.Node{}
	node.Name, node.Labels = "a", map[string]string{"k": "v"}
	status := &corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: "InternalIP", Address: "172.17.42.31"}, {Type: "InternalIP", Address: "fd00::31"}}}
	yes := "yes"
	if _, err := s.RegisterNode(t.Context(), node); err != nil {
		t.Error(err)
	}
	if err := s.PatchNodeStatus(t.Context(), "a", status); err != nil {
		t.Error(err)
	}
	if err := s.AnnotateNode(t.Context(), "a", map[string]*string{"flannel.alpha.coreos.com/backend-type": &yes, "old": nil}); err != nil {
		t.Error(err)
	}
	wrote := f.wrote()
	for i, want := range []string{
		`PATCH /api/v1/nodes/a application/merge-patch+json {"metadata":{"annotations":null,"labels":{"k":"v"}}}`,
		`PATCH /api/v1/nodes/a/status application/strategic-merge-patch+json {"status":{"addresses":[{"address":"172.17.42.31","type":"InternalIP"},{"address":"fd00::31","type":"InternalIP"},{"$patch":"replace"}]`,
		`PATCH /api/v1/nodes/a/status application/strategic-merge-patch+json {"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-type":"yes","old":null}}}`,
	} {
		if len(wrote) <= i || !strings.HasPrefix(wrote[i], want) {
			t.Errorf("write %d of %q\nwant %s", i, wrote, want)
		}
	}
	f.set(func() {
		f.answers["PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a"] = http.StatusNotFound
		f.answers["GET /api/v1/nodes/a"] = http.StatusNotFound
	})
	if err := s.RenewLease(t.Context(), "a", time.Now()); !errors.Is(err, ErrNotFound) {
		t.Errorf("lease of a node that is gone: %v", err)
	}
}

func TestPodWrites(t *testing.T) {
	f := newFakeAPI(t)
	s := f.open(t)
	status := &corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBestEffort, PodIP: "10.1.0.2", PodIPs: []corev1.PodIP{{IP: "10.1.0.2"}}}
	if err := s.PatchPodStatus(t.Context(), "ns", "x", "u", status); err != nil {
		t.Error(err)
	}
	want := `PATCH /api/v1/namespaces/ns/pods/x/status application/strategic-merge-patch+json {"metadata":{"uid":"u"},"status":{` +
		`"containerStatuses":null,"hostIP":null,"hostIPs":null,"initContainerStatuses":null,"message":null,"phase":"Running",` +
		`"podIP":"10.1.0.2","podIPs":[{"ip":"10.1.0.2"},{"$patch":"replace"}],"reason":null}}`
	if got := f.wrote(); len(got) != 1 || got[0] != want {
		t.Errorf("wrote %q\nwant %s", got, want)
	}
	f.set(func() {
		f.answers["PATCH /api/v1/namespaces/ns/pods/x/status"] = http.StatusConflict
		f.answers["DELETE /api/v1/namespaces/ns/pods/x"] = http.StatusConflict
	})
	if err := s.PatchPodStatus(t.Context(), "ns", "x", "u", status); !errors.Is(err, ErrNotFound) {
		t.Errorf("status of another pod of that name: %v", err)
	}
	if err := s.DeletePod(t.Context(), "ns", "x", "u"); err != nil {
		t.Errorf("another pod of that name: %v", err)
	}
}

func TestEvents(t *testing.T) {
	f := newFakeAPI(t)
	r := f.open(t).Events(t.Context(), "weft", "a")
	ref := corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "x", UID: "u", ResourceVersion: "1"}
	r.Event(ref, "Normal", "Pulled", "m")
	ref.ResourceVersion = "2" // the same pod, later
	r.Event(ref, "Normal", "Pulled", "m")
	r.Event(ref, "Normal", "Pulled", "m")
	r.Event(ref, "Normal", "Created", "m")
	eventually(t, "four writes", func() bool { return len(f.wrote()) == 4 })
	wrote := f.wrote()
	if !strings.HasPrefix(wrote[0], "POST /api/v1/namespaces/ns/events ") || !strings.HasPrefix(wrote[3], "POST ") {
		t.Errorf("first events not created: %q", wrote)
	}
	for i, want := range []string{`{"count":2,`, `{"count":3,`} {
		if got := wrote[i+1]; !strings.HasPrefix(got, "PATCH /api/v1/namespaces/ns/events/x.") || !strings.Contains(got, want) {
			t.Errorf("repeat %d: %s", i, got)
		}
	}
	for range 100 { // one object may not flood
		r.Event(ref, "Warning", "Unhealthy", "m")
	}
	other := ref
	other.Name, other.UID = "y", "v"
	r.Event(other, "Normal", "Pulled", "other")
	eventually(t, "the other pod's event", func() bool {
		return slices.ContainsFunc(f.wrote(), func(s string) bool { return strings.Contains(s, "other") })
	})
	if n := len(f.wrote()); n > eventBurst+1 {
		t.Errorf("%d writes, want at most %d", n, eventBurst+1)
	}
}
