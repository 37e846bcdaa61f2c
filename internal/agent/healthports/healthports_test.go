package healthports

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/api"
	"weft/internal/proxy"
)

func always() bool { return true }

var everywhere = []place{{"tcp", ""}}

func TestHealthOf(t *testing.T) {
	web := agenttest.Nginx("172.16.28.5:80", "172.16.28.6:80", "172.16.78.9:80")
	web.HealthCheckNodePort = 32000
	for i, node := range []string{"kube-node1", "kube-node1", "kube-node2"} {
		web.Endpoints[i].Node = node
	}
	web.Endpoints[1].Ready = false
	admin := web
	admin.Name.Port = "admin"
	got := healthOf("kube-node1", []api.ServicePort{web, admin, agenttest.Nginx("172.16.28.7:80")})
	if len(got) != 1 || got[32000].LocalEndpoints != 1 || got[32000].Service.Name != "my-nginx-service" {
		t.Errorf("have %+v", got)
	}
	if got = healthOf("kube-node3", []api.ServicePort{web}); got[32000].LocalEndpoints != 0 {
		t.Errorf("have %+v", got)
	}
}

// freePort is a TCP port that nobody has, and that the kernel gives to no socket by itself.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.N[uint16](20000)
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
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
	healthy := true
	p := New(slog.New(slog.DiscardHandler), func() bool { return healthy })
	port := freePort(t)
	answer := func(n int) map[uint16]serviceHealth {
		h := serviceHealth{LocalEndpoints: n}
		h.Service.Namespace, h.Service.Name = "default", "web"
		return map[uint16]serviceHealth{port: h}
	}
	for _, x := range []struct {
		n      int
		proxy  bool
		status int
	}{{2, true, 200}, {0, true, 503}, {1, true, 200}, {1, false, 503}} {
		p.apply(t.Context(), answer(x.n), everywhere)
		healthy = x.proxy // asked when a port is
		status, weight, h, err := ask(port)
		if err != nil || status != x.status || weight != strconv.Itoa(x.n) || h.LocalEndpoints != x.n || h.ServiceProxyHealthy != x.proxy || h.Service.Name != "web" {
			t.Errorf("%d local endpoints: %d, weight %s, %+v, %v", x.n, status, weight, h, err)
		}
	}
	p.Close()
	if _, _, _, err := ask(port); err == nil {
		t.Error("it still answers")
	}
}

// TestHealthPortTaken checks that a port of another program is named with its service, does not keep others from being served, and is
// served once it is free.
func TestHealthPortTaken(t *testing.T) {
	port, other := freePort(t), freePort(t)
	taken, err := net.Listen("tcp", fmt.Sprint(":", port))
	if err != nil {
		t.Fatal(err)
	}
	p := New(slog.New(slog.DiscardHandler), always)
	defer p.Close()
	h := serviceHealth{LocalEndpoints: 1}
	h.Service.Namespace, h.Service.Name = "default", "web"
	want := map[uint16]serviceHealth{port: h, other: h}
	p.apply(t.Context(), want, everywhere)
	if w := p.Warnings(); len(w) != 1 || !strings.Contains(w[0], "default/web: healthCheckNodePort "+strconv.Itoa(int(port))) {
		t.Errorf("have %q", w)
	}
	if status, _, _, err := ask(other); status != 200 {
		t.Errorf("the other: %d, %v", status, err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	if p.apply(t.Context(), want, everywhere); len(p.Warnings()) != 0 {
		t.Errorf("freed: %q", p.Warnings())
	}
	if status, _, _, err := ask(port); status != 200 {
		t.Errorf("freed: %d, %v", status, err)
	}
}

// TestHealthPortsFollowChanges: a service that begins to want its health asked for is served, and one that ends is not.
func TestHealthPortsFollowChanges(t *testing.T) {
	services := agenttest.Services(3, 1)
	p := New(slog.New(slog.DiscardHandler), always)
	defer p.Close()
	follow := func(c api.ServiceChanges) {
		t.Helper()
		p.Follow(t.Context(), proxy.Node{Name: "kube-node1"}, api.Snapshot{Services: services, Changes: &c})
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

// TestWhere: the ports are where NodePorts are.
func TestWhere(t *testing.T) {
	var host []netip.Addr
	for _, a := range []string{"127.0.0.1", "::1", "192.0.2.7", "10.0.0.7", "2001:db8::7", "fe80::7"} {
		host = append(host, netip.MustParseAddr(a))
	}
	for _, c := range []struct {
		host     []netip.Addr
		networks string
		want     string
	}{
		{host, "", "[{tcp }]"},
		{host, "0.0.0.0/0,::/0", "[{tcp4 0.0.0.0} {tcp6 ::}]"},
		{host, "192.0.2.0/24", "[{tcp 192.0.2.7} {tcp6 ::}]"},
		{host, "192.0.2.0/24,10.0.0.0/8,192.0.2.7/32,2001:db8::/32", "[{tcp 192.0.2.7} {tcp 10.0.0.7} {tcp 2001:db8::7}]"},
		{host, "127.0.0.0/8,198.51.100.0/24,::1/128", "[{tcp 127.0.0.1} {tcp ::1}]"},
		{host, "198.51.100.0/24,2001:db8:1::/48", "[]"},
		{host[2:4], "10.0.0.0/8", "[{tcp 10.0.0.7}]"}, // no IPv6 on the host
	} {
		n := proxy.Node{}
		for _, text := range strings.FieldsFunc(c.networks, func(r rune) bool { return r == ',' }) {
			n.NodePortAddresses = append(n.NodePortAddresses, netip.MustParsePrefix(text))
		}
		if got := fmt.Sprint(where(n, c.host)); got != c.want {
			t.Errorf("NodePorts on %q: %s, want %s", c.networks, got, c.want)
		}
	}
}

// TestHealthPortMoves: a change of the NodePorts' addresses moves the port.
func TestHealthPortMoves(t *testing.T) {
	services := agenttest.Services(1, 1)
	services[0].HealthCheckNodePort = freePort(t)
	p := New(slog.New(slog.DiscardHandler), always)
	defer p.Close()
	for _, c := range []struct {
		networks []netip.Prefix
		answers  bool
	}{
		{nil, true},
		{[]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}, false},
		{[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, true},
	} {
		n := proxy.Node{Name: "kube-node1", NodePortAddresses: c.networks}
		p.Follow(t.Context(), n, api.Snapshot{Services: services})
		if _, _, _, err := ask(services[0].HealthCheckNodePort); (err == nil) != c.answers {
			t.Errorf("NodePorts on %v: %v", c.networks, err)
		}
	}
}
