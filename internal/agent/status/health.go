package status

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// health is the body of /healthz and /livez, as kube-proxy's.
type health struct {
	LastUpdated  time.Time `json:"lastUpdated"` // of the services' rules, zero: never
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"` // for new connections by way of a load balancer; not at /livez
	Healthy      bool      `json:"healthy"`                // the rules are not behind for long
}

// patient is whose health is asked for.
type patient interface {
	Status() Status
	Ready() error
	Leaving() bool
	Updated() (at time.Time, healthy bool)
}

// probes answers the questions for the agent's health and counts them.
type probes struct {
	mu     sync.Mutex
	counts map[probed]int
}

type probed struct {
	path string
	code int
}

func (p *probes) count(path string, code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts = map[probed]int{}
	}
	p.counts[probed{path, code}]++
}

// routes adds /livez, which is 503 while the services' rules are behind for long, /healthz, which is so too, and from when the node is being
// deleted or the cluster autoscaler is about to (KEP-3836), so that load balancers send nothing new there while what is there goes on, and
// /readyz, which is 503 until network and rules were programmed once.
func (p *probes) routes(mux *http.ServeMux, r patient) {
	answer := func(w http.ResponseWriter, path string, eligible *bool) {
		h := health{CurrentTime: time.Now(), NodeEligible: eligible}
		h.LastUpdated, h.Healthy = r.Updated()
		code := http.StatusOK
		if !h.Healthy || eligible != nil && !*eligible {
			code = http.StatusServiceUnavailable
		}
		p.count(path, code)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(h) // who asked has left
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "/livez", nil)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		stays := !r.Leaving()
		answer(w, "/healthz", &stays)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := r.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
		for _, line := range r.Status().Lease.Degraded() {
			fmt.Fprintln(w, "degraded:", line)
		}
	})
}

// writeMetrics prints how often which answer was given, under kube-proxy's names.
func (p *probes) writeMetrics(w io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	codes := slices.SortedFunc(maps.Keys(p.counts), func(a, b probed) int { return a.code - b.code })
	for _, m := range []struct{ path, name string }{{"/healthz", "kubeproxy_proxy_healthz_total"}, {"/livez", "kubeproxy_proxy_livez_total"}} {
		fmt.Fprintf(w, "# HELP %s answers of %s\n# TYPE %s counter\n", m.name, m.path, m.name)
		for _, c := range codes {
			if c.path == m.path {
				fmt.Fprintf(w, "%s{code=\"%d\"} %d\n", m.name, c.code, p.counts[c])
			}
		}
	}
}
