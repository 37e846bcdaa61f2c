// Package kubelet serves what kubectl asks a node for: logs, exec, attach and port-forward of its pods, over HTTPS and only for those
// whom the cluster's CA and the API server vouch for.
//
// Floor 4, programs (part of node).
package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/runtime"
)

// Pods is what the server needs of the node's pods. Errors wrap runtime.ErrNotFound when there is no such pod or container.
type Pods interface {
	Log(namespace, pod, container string, previous bool) (Log, error)
	Exec(ctx context.Context, namespace, pod, container string, cmd []string, s runtime.Stream) (exitCode int, err error)
	Netns(namespace, pod string) (path string, err error) // "" for the host's
	List() []*corev1.Pod
}

// Log is where a container's log is.
type Log struct {
	Path    string      // file in the CRI log format
	Running func() bool // more may come
}

// Access asks whether a caller may do verb on nodes/<sub> of this node.
type Access func(ctx context.Context, user string, groups []string, verb, sub string) (bool, error)

// Config is what a server needs; all fields are required.
type Config struct {
	Pods     Pods
	Access   Access
	Cert     tls.Certificate
	ClientCA *x509.CertPool // who signs the callers' certificates
	Log      *slog.Logger
}

// Timeouts of a connection; streams live as long as they are used.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 4 * time.Hour
	createTimeout = 30 * time.Second
	accessMemory  = 30 * time.Second // how long an answer of Access is believed
	maxAccess     = 1024             // answers remembered
)

// subresource of the node that all this is: who may use it may do everything in the node's pods.
const subresource = "proxy"

// superusers may do everything, as on the API server: they are its own kubelet client, and the cluster's founders.
const superusers = "system:masters"

type server struct {
	Config
	mu      sync.Mutex
	answers map[question]answer
}

type question struct{ user, verb string }

type answer struct {
	allowed bool
	until   time.Time
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, c Config) error {
	s := &server{Config: c, answers: map[question]answer{}}
	h := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{c.Cert}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: c.ClientCA,
			NextProtos: []string{"http/1.1"}, // SPDY and WebSocket upgrades are HTTP/1.1's
		},
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = h.Close() // its listener is gone either way
	})
	err := h.ServeTLS(l, "", "")
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve kubelet API: %w", err)
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f http.HandlerFunc) { mux.Handle(pattern, s.guard(f)) }
	handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	handle("GET /pods", s.pods)
	handle("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, method := range []string{"GET ", "POST "} {
		handle(method+"/exec/{namespace}/{pod}/{container}", s.exec)
		handle(method+"/exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		handle(method+"/attach/{namespace}/{pod}/{container}", s.attach)
		handle(method+"/attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		handle(method+"/portForward/{namespace}/{pod}", s.portForward)
		handle(method+"/portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	return mux
}

// guard lets a request through when its caller shows a certificate of the cluster's CA and may do this to nodes/proxy.
func (s *server) guard(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "Unauthorized: a client certificate signed by the cluster's CA is needed", http.StatusUnauthorized)
			return
		}
		who := r.TLS.VerifiedChains[0][0].Subject
		allowed, err := s.allowed(r.Context(), who.CommonName, who.Organization, verb(r.Method))
		if err != nil {
			s.Config.Log.Warn("caller not checked", "user", who.CommonName, "err", err)
			http.Error(w, "the API server did not say whether this is allowed: "+err.Error(), http.StatusInternalServerError)
			return
		}
		if !allowed {
			http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource=%s)", who.CommonName, verb(r.Method), subresource),
				http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

func verb(method string) string {
	if method == http.MethodPost {
		return "create"
	}
	return "get"
}

// allowed remembers answers for a while, so that a probe or a tail -f costs the API server nothing.
func (s *server) allowed(ctx context.Context, user string, groups []string, verb string) (bool, error) {
	if slices.Contains(groups, superusers) {
		return true, nil
	}
	q, now := question{user, verb}, time.Now()
	s.mu.Lock()
	a, ok := s.answers[q]
	s.mu.Unlock()
	if ok && now.Before(a.until) {
		return a.allowed, nil
	}
	allowed, err := s.Access(ctx, user, append(slices.Clone(groups), "system:authenticated"), verb, subresource)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) >= maxAccess {
		clear(s.answers)
	}
	s.answers[q] = answer{allowed: allowed, until: now.Add(accessMemory)}
	return allowed, nil
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{}
	list.Kind, list.APIVersion = "PodList", "v1"
	for _, p := range s.Config.Pods.List() {
		list.Items = append(list.Items, *p)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&list); err != nil {
		s.Config.Log.Debug("pod list not sent", "err", err)
	}
}
