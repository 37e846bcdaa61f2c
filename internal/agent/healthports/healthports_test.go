package healthports

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/api"
)

func TestHealthOf(t *testing.T) {
	web := agenttest.Nginx("172.16.28.5:80", "172.16.28.6:80", "172.16.78.9:80")
	web.HealthCheckNodePort = 32000
	for i, node := range []string{"kube-node1", "kube-node1", "kube-node2"} {
		web.Endpoints[i].Node = node
	}
	web.Endpoints[1].Ready = false
	admin := web
	admin.Name.Port = "admin"
	got := healthOf("kube-node1", []api.ServicePort{web, admin, agenttest.Nginx("172.16.28.7:80")}, true)
	if len(got) != 1 || got[32000].LocalEndpoints != 1 || got[32000].Service.Name != "my-nginx-service" || !got[32000].ServiceProxyHealthy {
		t.Errorf("have %+v", got)
	}
	if got = healthOf("kube-node3", []api.ServicePort{web}, true); got[32000].LocalEndpoints != 0 {
		t.Errorf("have %+v", got)
	}
}

// freePort is a TCP port that nobody has.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func ask(port uint16) (status int, weight string, h serviceHealth, err error) {
	r, err := http.Get("http://127.0.0.1:" + strconv.Itoa(int(port)) + "/healthz")
	if err != nil {
		return 0, "", h, err
	}
	defer r.Body.Close()
	return r.StatusCode, r.Header.Get("X-Load-Balancing-Endpoint-Weight"), h, json.NewDecoder(r.Body).Decode(&h)
}

func TestHealthPorts(t *testing.T) {
	p := &Ports{log: slog.New(slog.DiscardHandler)}
	port := freePort(t)
	answer := func(n int, healthy bool) map[uint16]serviceHealth {
		h := serviceHealth{LocalEndpoints: n, ServiceProxyHealthy: healthy}
		h.Service.Namespace, h.Service.Name = "default", "web"
		return map[uint16]serviceHealth{port: h}
	}
	for _, x := range []struct {
		n      int
		proxy  bool
		status int
	}{{2, true, 200}, {0, true, 503}, {1, true, 200}, {1, false, 503}} {
		if err := p.apply(t.Context(), answer(x.n, x.proxy)); err != nil {
			t.Fatal(err)
		}
		status, weight, h, err := ask(port)
		if err != nil || status != x.status || weight != strconv.Itoa(x.n) || h.LocalEndpoints != x.n || h.Service.Name != "web" {
			t.Errorf("%d local endpoints: %d, weight %s, %+v, %v", x.n, status, weight, h, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := ask(port); err == nil {
		t.Error("it still answers")
	}
}

// TestHealthPortTaken checks that a port of another program is named with its service, does not keep others from being served, and is
// served once it is free.
func TestHealthPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port, other := uint16(taken.Addr().(*net.TCPAddr).Port), freePort(t)
	p := &Ports{log: slog.New(slog.DiscardHandler)}
	defer p.Close()
	h := serviceHealth{LocalEndpoints: 1, ServiceProxyHealthy: true}
	h.Service.Namespace, h.Service.Name = "default", "web"
	want := map[uint16]serviceHealth{port: h, other: h}
	if err := p.apply(t.Context(), want); err == nil || !strings.Contains(err.Error(), "default/web: healthCheckNodePort "+strconv.Itoa(int(port))) {
		t.Errorf("have %v", err)
	}
	if status, _, _, err := ask(other); status != 200 {
		t.Errorf("the other: %d, %v", status, err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.apply(t.Context(), want); err != nil {
		t.Error(err)
	}
	if status, _, _, err := ask(port); status != 200 {
		t.Errorf("freed: %d, %v", status, err)
	}
}

// TestHealthPortsFollowChanges: a service that begins to want its health asked for is served, and one that ends is not.
func TestHealthPortsFollowChanges(t *testing.T) {
	services := agenttest.Services(3, 1)
	p := New(slog.New(slog.DiscardHandler))
	defer func() { _ = p.Close() }()
	follow := func(c api.ServiceChanges) {
		t.Helper()
		if err := p.Follow(t.Context(), "kube-node1", api.Snapshot{Services: services, Changes: &c}, true); err != nil {
			t.Fatal(err)
		}
	}
	follow(api.ServiceChanges{To: 1, Fresh: slices.Clone(services)})
	for i, port := range []uint16{34567, 0} {
		services[1].HealthCheckNodePort = port
		follow(api.ServiceChanges{From: uint64(i) + 1, To: uint64(i) + 2, Fresh: services[1:2]})
		if n := len(p.open); n != min(int(port), 1) {
			t.Errorf("healthCheckNodePort %d: %d ports are open", port, n)
		}
	}
}
