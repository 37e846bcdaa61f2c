// Package status is what the agent says of itself: the answers on its socket and its ports, and the commands that print them.
//
// Floor 4, programs.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/leases"
	"weft/internal/agent/loop"
	"weft/internal/agent/network"
	"weft/internal/agent/paths"
	"weft/internal/agent/refused"
	"weft/internal/agent/rundir"
	"weft/internal/agent/services"
	"weft/internal/agent/settings"
	"weft/internal/agent/tunnels"
	"weft/internal/relay"
)

// Status is what the agent says of itself.
type Status struct {
	Node      string          `json:"node"`
	Subnet    string          `json:"subnet,omitempty"`
	SubnetV6  string          `json:"subnetV6,omitempty"`
	Backend   string          `json:"backend"`
	ProxyMode facts.ProxyMode `json:"proxyMode"` // the one in force
	Attach    string          `json:"attach"`
	Converged bool            `json:"converged"` // every loop's last step worked, and each had one
	Pods      int             `json:"pods"`
	Peers     int             `json:"peers"`
	Services  int             `json:"services"`
	Network   network.Stats   `json:"network"`
	Rules     loop.Stats      `json:"rules"`
	Edge      refused.Status  `json:"edge"`
	Warnings  []string        `json:"warnings,omitempty"` // what stands in the way and is not ours to change
	Paths     []paths.Status  `json:"paths,omitempty"`    // to the other nodes
	Fights    []loop.Fight    `json:"fights,omitempty"`   // objects that somebody else keeps changing

	ServiceLimits []string `json:"serviceLimits,omitempty"` // what of services is not done as they want it, and why

	ForgottenFlows int `json:"forgottenFlows"` // connection tracking entries of UDP flows that led to no endpoint any longer

	Relay *relay.Stats `json:"relay,omitempty"` // in mode userspace

	Metrics []func(io.Writer) `json:"-"` // print what is counted elsewhere, in the Prometheus text format

	Settings settings.List `json:"-"`                  // what the agent was told; the path /settings tells it
	Draining int           `json:"draining,omitempty"` // listeners of mode userspace that are open for the connections they have
	Relayed  int           `json:"relayed,omitempty"`  // connections and UDP sessions of mode userspace

	Lease *leases.Status `json:"lease,omitempty"`
}

// reporter answers questions about the agent.
type reporter interface {
	patient
	State() string
	Diff(ctx context.Context) ([]string, error)
}

// Serve answers everything on the unix socket, the questions for health on the health address, and /metrics on the metrics address, which may be
// the same.
func Serve(ctx context.Context, r reporter, runDir, healthz, metrics string) error {
	socket := filepath.Join(runDir, rundir.SocketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	var lc net.ListenConfig
	local, err := lc.Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect %s: %w", socket, err), local.Close())
	}
	p := &probes{}
	all, listeners := http.NewServeMux(), []net.Listener{local}
	p.routes(all, r)
	metricRoutes(all, r, p)
	localRoutes(all, r)
	handlers := []http.Handler{all}
	for _, x := range []struct {
		flag, bind string
		health     bool
		metrics    bool
	}{{"--healthz-bind", healthz, true, healthz == metrics}, {"--metrics-bind", metrics, false, true}} {
		if x.bind == "" || !x.health && healthz == metrics {
			continue
		}
		l, err := lc.Listen(ctx, "tcp", x.bind)
		if err != nil {
			for _, l := range listeners {
				_ = l.Close() // the error that counts is the other one
			}
			return fmt.Errorf("%s=%s: %w: choose another address, or \"\" for none", x.flag, x.bind, err)
		}
		mux := http.NewServeMux()
		if x.health {
			p.routes(mux, r)
		}
		if x.metrics {
			metricRoutes(mux, r, p)
		}
		listeners, handlers = append(listeners, l), append(handlers, mux)
	}
	return serveAll(ctx, listeners, handlers)
}

// serveAll serves until ctx ends or a listener fails.
func serveAll(ctx context.Context, listeners []net.Listener, handlers []http.Handler) (err error) {
	servers, failed := make([]*http.Server, len(listeners)), make(chan error, len(listeners))
	for i, l := range listeners {
		s := &http.Server{Handler: handlers[i], ReadHeaderTimeout: 5 * time.Second}
		servers[i] = s
		go func() { failed <- s.Serve(l) }()
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for _, s := range servers {
		_ = s.Close() // the agent ends: open requests end with it
	}
	return err
}

// metricRoutes adds /metrics and, as kube-proxy has it, /proxyMode.
func metricRoutes(mux *http.ServeMux, r reporter, p *probes) {
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		writeMetrics(w, r.Status())
		p.writeMetrics(w)
	})
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, r.Status().ProxyMode) })
}

// localRoutes adds what only the host's root may ask.
func localRoutes(mux *http.ServeMux, r reporter) {
	debugRoutes(mux)
	asJSON := func(path string, of func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(of()); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	asJSON("/status", func() any { return r.Status() })
	asJSON("/settings", func() any { return r.Status().Settings })
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, r.State()) })
	mux.HandleFunc("GET /diff", func(w http.ResponseWriter, req *http.Request) {
		lines, err := r.Diff(req.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, l := range lines {
			fmt.Fprintln(w, l)
		}
	})
}

// writeMetrics prints the counters in the Prometheus text format.
func writeMetrics(w io.Writer, s Status) {
	gauge := func(name, help string, v float64, kind string) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %g\n", name, help, name, kind, name, v)
	}
	converged := 0.0
	if s.Converged {
		converged = 1
	}
	gauge("weft_converged", "1 when the last step of every loop worked", converged, "gauge")
	gauge("weft_pods", "pods attached to this node", float64(s.Pods), "gauge")
	gauge("weft_peers", "leases of other nodes", float64(s.Peers), "gauge")
	gauge("weft_service_ports", "service ports programmed", float64(s.Services), "gauge")
	gauge("weft_service_limits", "what service ports want and do not get: see the warnings of weft status", float64(len(s.ServiceLimits)), "gauge")
	gauge("weft_network_ops_total", "kernel objects added, changed or deleted", float64(s.Network.Ops), "counter")
	gauge("weft_rules_ops_total", "rules, elements and listeners added, changed or deleted", float64(s.Rules.Ops), "counter")
	gauge("weft_relayed_connections", "TCP connections and UDP sessions of mode userspace that go through the agent", float64(s.Relayed), "gauge")
	gauge("weft_udp_flows_forgotten_total", "connection tracking entries deleted because their endpoint or service is gone",
		float64(s.ForgottenFlows), "counter")
	for _, more := range s.Metrics {
		more(w)
	}
	leases.WriteMetrics(w, s.Lease)
	tunnels.WriteMetrics(w, s.Network.Tunnels)
	refused.WriteMetrics(w, s.Edge)
	paths.WriteMetrics(w, s.Paths)
	services.WriteRelayMetrics(w, s.Relay)
	writeProcess(w)
}
