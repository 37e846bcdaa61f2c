// Package healthports serves the healthCheckNodePorts of services, by which load balancers choose nodes.
//
// Floor 4, programs.
package healthports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/api"
	"weft/internal/proxy"
)

// serviceHealth is what a service's healthCheckNodePort answers: a load balancer sends packets to the nodes whose answer is 200
// (externalTrafficPolicy Local). The field names are kube-proxy's, which load balancers know.
type serviceHealth struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

// healthOf says by healthCheckNodePort how many ready endpoints the node has for each service that wants to be asked. The ports of
// a service share the answer; an address that serves several of them counts once.
func healthOf(node string, services []api.ServicePort) map[uint16]serviceHealth {
	out := map[uint16]serviceHealth{}
	seen := map[uint16]map[netip.Addr]bool{}
	for i := range services {
		s := &services[i]
		port := s.HealthCheckNodePort
		if port == 0 {
			continue
		}
		h, ok := out[port]
		if !ok {
			h.Service.Namespace, h.Service.Name = s.Name.Namespace, s.Name.Name
			seen[port] = map[netip.Addr]bool{}
		}
		for _, e := range s.Endpoints {
			if a := e.Addr.Addr(); e.Ready && e.Node == node && !seen[port][a] {
				seen[port][a] = true
				h.LocalEndpoints++
			}
		}
		out[port] = h
	}
	return out
}

// ServeHTTP answers any path, as kube-proxy does.
func (h serviceHealth) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(h.LocalEndpoints))
	if h.LocalEndpoints == 0 || !h.ServiceProxyHealthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // the client is gone: nobody to tell
}

// Ports serves the healthCheckNodePorts.
type Ports struct {
	log     *slog.Logger
	healthy func() bool // whether services are in good hands here
	addrs   func() ([]netip.Addr, error)

	mu     sync.Mutex
	open   map[uint16]*healthPort
	failed map[uint16]string // why a port could not be opened, so that it is said once

	wanted map[uint16]serviceHealth // what was last asked for, by the version at of the services
	at     uint64
}

// New returns ports of which none is open. healthy is asked whenever a port is: when it says no, load balancers are to send nothing here.
func New(log *slog.Logger, healthy func() bool) *Ports {
	return &Ports{log: log, healthy: healthy, addrs: hostAddrs}
}

// Follow brings the ports up to date with a snapshot's services. All services are looked at only while one of them has such a port. What can't be
// opened is a warning, and tried again at the next call: it must not hold up the rules. Calls of it do not overlap.
func (p *Ports) Follow(ctx context.Context, n proxy.Node, snap api.Snapshot) {
	c := snap.Changes
	known := c != nil && c.From != 0 && c.From == p.at && len(p.wanted) == 0
	if c != nil {
		p.at = c.To
	}
	if known && !healthChecked(c.Fresh) {
		return
	}
	p.wanted = healthOf(n.Name, snap.Services)
	var host []netip.Addr
	if len(p.wanted) > 0 && len(n.NodePortAddresses) > 0 {
		var err error
		if host, err = p.addrs(); err != nil {
			p.log.Error("the services' healthCheckNodePorts stay where they are", "err", err)
			return
		}
	}
	p.apply(ctx, p.wanted, where(n, host))
}

// healthPort is one listening server; its answer is replaced as it changes.
type healthPort struct {
	answer  atomic.Pointer[serviceHealth]
	healthy func() bool
	at      []place
	server  *http.Server
}

func (h *healthPort) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := *h.answer.Load()
	answer.ServiceProxyHealthy = h.healthy()
	answer.ServeHTTP(w, r)
}

// apply opens, changes and closes ports so that they answer as wanted at the places. A port that another program has is a warning and tried
// again at the next call; the others are served.
func (p *Ports) apply(ctx context.Context, want map[uint16]serviceHealth, at []place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open, p.failed = map[uint16]*healthPort{}, map[uint16]string{}
	}
	for port, h := range p.open {
		if _, ok := want[port]; !ok || !slices.Equal(h.at, at) {
			_ = h.server.Close() // an answer under way is worth nothing now
			delete(p.open, port)
		}
	}
	for port := range p.failed {
		if _, ok := want[port]; !ok {
			delete(p.failed, port)
		}
	}
	for port, answer := range want {
		if h := p.open[port]; h != nil {
			h.answer.Store(&answer)
			continue
		}
		err := p.listen(ctx, port, answer, at)
		if err == nil {
			delete(p.failed, port)
			continue
		}
		text := fmt.Sprintf("service %s/%s: healthCheckNodePort %d is not served, load balancers take the node for unhealthy: %v: "+
			"free the port, or give the service another", answer.Service.Namespace, answer.Service.Name, port, err)
		if p.failed[port] != text {
			p.failed[port] = text
			p.log.Error("a service's health is not served", "err", text)
		}
	}
}

// Warnings are what could not be opened, one line each.
func (p *Ports) Warnings() []string {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Values(p.failed))
}

func (p *Ports) listen(ctx context.Context, port uint16, answer serviceHealth, at []place) error {
	var lc net.ListenConfig
	var all []net.Listener
	for _, x := range at {
		l, err := lc.Listen(ctx, x.network, net.JoinHostPort(x.addr, strconv.Itoa(int(port))))
		if err != nil {
			for _, l := range all {
				_ = l.Close() // the error that counts is the other one
			}
			return err
		}
		all = append(all, l)
	}
	h := &healthPort{healthy: p.healthy, at: at}
	h.answer.Store(&answer)
	h.server = &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	p.open[port] = h
	for _, l := range all {
		go func() {
			if err := h.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				p.log.Error("a service's health is no longer served", "port", port, "err", err)
			}
		}()
	}
	return nil
}

// Close closes all ports.
func (p *Ports) Close() { p.apply(context.Background(), nil, nil) }

// healthChecked reports whether any of the services wants its health to be asked for.
func healthChecked(services []api.ServicePort) bool {
	return slices.ContainsFunc(services, func(s api.ServicePort) bool { return s.HealthCheckNodePort != 0 })
}
