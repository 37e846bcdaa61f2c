package scale

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// The paths of what the agent and kube-proxy list and watch.
const (
	nodesPath    = "/api/v1/nodes"
	podsPath     = "/api/v1/pods"
	servicesPath = "/api/v1/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/endpointslices"
)

const protobufType = "application/vnd.kubernetes.protobuf"

// object is what the API holds.
type object interface {
	runtime.Object
	metav1.Object
}

// cluster is an API server of a few kinds, in memory.
type cluster struct {
	tb       testing.TB
	encoder  runtime.Encoder
	listener net.Listener

	mu       sync.Mutex
	kinds    map[string]*kind
	revision int
}

// kind holds the objects of one kind, encoded.
type kind struct {
	gvk      schema.GroupVersionKind
	empty    object
	objects  map[string][]byte
	watchers map[*watcher]bool
}

// watcher is a watch: frames wait in it until its connection takes them.
type watcher struct {
	mu     sync.Mutex
	frames [][]byte
	wake   chan struct{}
}

func (w *watcher) put(frame []byte) {
	w.mu.Lock()
	w.frames = append(w.frames, frame)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func newCluster(tb testing.TB) *cluster {
	tb.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			tb.Fatal(err)
		}
	}
	c := &cluster{tb: tb, encoder: protobuf.NewSerializer(scheme, scheme), kinds: map[string]*kind{}, revision: 1}
	core := corev1.SchemeGroupVersion
	for path, k := range map[string]*kind{
		nodesPath: {gvk: core.WithKind("Node"), empty: &corev1.Node{}}, podsPath: {gvk: core.WithKind("Pod"), empty: &corev1.Pod{}},
		servicesPath: {gvk: core.WithKind("Service"), empty: &corev1.Service{}},
		slicesPath:   {gvk: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), empty: &discoveryv1.EndpointSlice{}},
	} {
		k.objects, k.watchers = map[string][]byte{}, map[*watcher]bool{}
		c.kinds[path] = k
	}
	var err error
	if c.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{Handler: c}
	go func() { _ = server.Serve(c.listener) }()
	tb.Cleanup(func() { _ = server.Close() })
	return c
}

// kubeconfig writes one and returns its path.
func (c *cluster) kubeconfig() string {
	c.tb.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": "http://" + c.listener.Addr().String()}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": "t"}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "u"}}},
	})
	path := filepath.Join(c.tb.TempDir(), "kubeconfig")
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		c.tb.Fatal(err)
	}
	return path
}

func (c *cluster) encode(o runtime.Object, gvk schema.GroupVersionKind) []byte {
	o.GetObjectKind().SetGroupVersionKind(gvk)
	b, err := runtime.Encode(c.encoder, o)
	if err != nil {
		c.tb.Error(err)
	}
	return b
}

func (c *cluster) frame(event string, encoded []byte) []byte {
	e := metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: encoded}}
	b, err := e.Marshal()
	if err != nil {
		c.tb.Error(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// put writes an object and tells those who watch.
func (c *cluster) put(path string, o object) { c.write(path, "", o) }

// remove deletes an object.
func (c *cluster) remove(path string, o object) { c.write(path, "DELETED", o) }

func (c *cluster) write(path, event string, o object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kinds[path]
	c.revision++
	o.SetResourceVersion(strconv.Itoa(c.revision))
	key := o.GetNamespace() + "/" + o.GetName()
	encoded := c.encode(o, k.gvk)
	if event == "" {
		if event = "ADDED"; k.objects[key] != nil {
			event = "MODIFIED"
		}
		k.objects[key] = encoded
	} else {
		delete(k.objects, key)
	}
	if len(k.watchers) == 0 {
		return
	}
	frame := c.frame(event, encoded)
	for w := range k.watchers {
		w.put(frame)
	}
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := c.kinds[r.URL.Path]
	switch q := r.URL.Query(); {
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"major":"1","minor":"36","gitVersion":"v1.36.3"}`)
	case r.Method != http.MethodGet:
		_, _ = io.Copy(io.Discard, r.Body) // what a node says of itself matters to nobody here
		c.object(w, nodesPath, "/bench")
	case q.Get("watch") != "" && k != nil:
		c.watch(w, r, k, q.Get("sendInitialEvents") == "true")
	case k != nil:
		c.list(w, k)
	case strings.HasPrefix(r.URL.Path, nodesPath+"/"):
		c.object(w, nodesPath, "/"+filepath.Base(r.URL.Path))
	case q.Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		if q.Get("sendInitialEvents") == "true" {
			fmt.Fprintln(w, `{"type":"BOOKMARK","object":{"kind":"ServiceCIDR","apiVersion":"networking.k8s.io/v1","metadata":{"resourceVersion":"1",`+
				`"annotations":{"k8s.io/initial-events-end":"true"}}}}`)
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	}
}

func (c *cluster) object(w http.ResponseWriter, path, key string) {
	c.mu.Lock()
	encoded := c.kinds[path].objects[key]
	c.mu.Unlock()
	if encoded == nil {
		http.NotFound(w, nil)
		return
	}
	w.Header().Set("Content-Type", protobufType)
	_, _ = w.Write(encoded)
}

// list answers as a server that does not stream lists; those who ask here ask for a stream first.
func (c *cluster) list(w http.ResponseWriter, k *kind) {
	c.mu.Lock()
	n := len(k.objects)
	c.mu.Unlock()
	if n > 0 {
		http.Error(w, "lists are streamed", http.StatusNotImplemented)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"kind":"%sList","apiVersion":"%s","metadata":{"resourceVersion":"1"},"items":[]}`, k.gvk.Kind, k.gvk.GroupVersion())
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request, k *kind, initial bool) {
	me := &watcher{wake: make(chan struct{}, 1)}
	c.mu.Lock()
	if initial {
		keys := make([]string, 0, len(k.objects))
		for key := range k.objects {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			me.frames = append(me.frames, c.frame("ADDED", k.objects[key]))
		}
		mark := k.empty.DeepCopyObject().(object)
		mark.SetResourceVersion(strconv.Itoa(c.revision))
		mark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		me.frames = append(me.frames, c.frame("BOOKMARK", c.encode(mark, k.gvk)))
	}
	k.watchers[me] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(k.watchers, me)
		c.mu.Unlock()
	}()
	w.Header().Set("Content-Type", protobufType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		me.mu.Lock()
		frames := me.frames
		me.frames = nil
		me.mu.Unlock()
		for _, f := range frames {
			if _, err := w.Write(f); err != nil {
				return
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-me.wake:
		}
	}
}
