package kube

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAPI serves canned lists, streams watch events, and writes down what is written to it.
type fakeAPI struct {
	*httptest.Server
	mu      sync.Mutex
	lists   map[string][]string // path -> items as JSON
	streams map[string][]chan string
	answers map[string]int // "METHOD path" -> status, for writes
	writes  []string       // "METHOD path content-type body"
	status  int            // of everything, when not 0
	version int
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{lists: map[string][]string{}, streams: map[string][]chan string{}, answers: map[string]int{}, version: 1}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		f.hangUp()
		f.Close()
	})
	return f
}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	f.mu.Lock()
	status, items, known := f.status, f.lists[r.URL.Path], f.lists[r.URL.Path] != nil
	f.mu.Unlock()
	switch {
	case status != 0:
		fail(w, status)
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"gitVersion":"v1.36.3"}`)
	case r.URL.Query().Get("watch") != "" && r.URL.Query().Get("sendInitialEvents") != "":
		fail(w, http.StatusUnprocessableEntity) // a server without WatchList
	case r.URL.Query().Get("watch") != "":
		f.stream(w, r)
	case r.Method == http.MethodGet && known:
		f.mu.Lock()
		defer f.mu.Unlock()
		kind, group := map[string]string{nodesPath: "Node", podsPath: "Pod", svcPath: "Service", slicesPath: "EndpointSlice"}[r.URL.Path], "v1"
		if r.URL.Path == slicesPath {
			group = "discovery.k8s.io/v1"
		}
		fmt.Fprintf(w, `{"kind":"%sList","apiVersion":"%s","metadata":{"resourceVersion":"%d"},"items":[%s]}`, kind, group, f.version,
			strings.Join(items, ","))
	default:
		f.write(w, r)
	}
}

func fail(w http.ResponseWriter, status int) {
	reason := map[int]string{401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}[status]
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"%s","code":%d,"message":"canned"}`, reason, status)
}

func (f *fakeAPI) stream(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 100)
	f.mu.Lock()
	f.streams[r.URL.Path] = append(f.streams[r.URL.Path], events)
	f.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			fmt.Fprintln(w, e)
			w.(http.Flusher).Flush()
		}
	}
}

func (f *fakeAPI) write(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	key := r.Method + " " + r.URL.Path
	if r.Method != http.MethodGet {
		f.writes = append(f.writes, fmt.Sprintf("%s %s %s", key, r.Header.Get("Content-Type"), body))
	}
	if status := f.answers[key]; status != 0 {
		fail(w, status)
		return
	}
	kind := "Node"
	switch {
	case strings.Contains(r.URL.Path, "/events"):
		kind = "Event"
	case strings.Contains(r.URL.Path, "/pods"):
		kind = "Pod"
	}
	fmt.Fprintf(w, `{"kind":"%s","apiVersion":"v1","metadata":{"name":"x"}}`, kind)
}

// send streams an event to all who watch path.
func (f *fakeAPI) send(path, kind, object string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	object = strings.Replace(object, `"metadata":{`, fmt.Sprintf(`"metadata":{"resourceVersion":"%d",`, f.version), 1)
	for _, s := range f.streams[path] {
		s <- fmt.Sprintf(`{"type":"%s","object":%s}`, kind, object)
	}
}

func (f *fakeAPI) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, all := range f.streams {
		for _, s := range all {
			close(s)
		}
		delete(f.streams, path)
	}
}

func (f *fakeAPI) watched(paths ...string) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !slices.ContainsFunc(paths, func(p string) bool { return len(f.streams[p]) == 0 })
	}
}

func (f *fakeAPI) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeAPI) wrote() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writes)
}

// kubeconfig writes one for the server and returns its path.
func (f *fakeAPI) kubeconfig(t *testing.T, server string) string {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": server, "certificate-authority-data": ca}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": "t"}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "u"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *fakeAPI) open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(f.kubeconfig(t, f.URL), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
