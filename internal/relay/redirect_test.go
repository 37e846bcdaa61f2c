package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/netstate"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
	"weft/internal/relay"
	"weft/internal/xt"
)

// host is a node in the test's own network namespace with two pods behind a bridge, as in the walkthrough: sshd-2 and nginx-0.
type host struct {
	t           testing.TB
	sshd, nginx *netns.NS
	node        proxy.Node
	relay       *relay.Relay
}

func run(t testing.TB, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func newHost(t testing.TB) *host {
	t.Helper()
	netns.Need(t)
	h := &host{t: t, node: proxy.Node{
		Name: "kube-node1", LocalhostNodePorts: true, Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("fd00:17::31")},
	}}
	t.Cleanup(func() { run(t, "ip link del docker0; ip link del eth0") })
	run(t, `ip link add docker0 type bridge
ip link add eth0 type veth peer name wire
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for a in 172.16.28.1/24 fd00:16::1/64; do ip addr add $a dev docker0 nodad; done
for a in 172.17.42.31/16 fd00:17::31/64; do ip addr add $a dev eth0 nodad; done
ip link set docker0 up; ip link set eth0 up; ip link set wire up
ip route add default via 172.17.42.1; ip -6 route add default via fd00:17::1`)
	h.sshd, h.nginx = h.pod("sshd2", 5), h.pod("nginx0", 9)
	h.relay = relay.New(relay.Options{})
	t.Cleanup(func() {
		_ = h.relay.Close()
		h.sync(nil)
	})
	return h
}

func (h *host) pod(name string, n int) *netns.NS {
	h.t.Helper()
	ns, err := netns.New("/run/netns/" + name)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = ns.Close() })
	run(h.t, fmt.Sprintf(`ip link add v%[1]s type veth peer name eth0 netns %[1]s
ip link set v%[1]s master docker0 up
ip netns exec %[1]s sh -ec 'ip addr add 172.16.28.%[2]d/24 dev eth0; ip addr add fd00:16::%[2]d/64 dev eth0 nodad; ip link set eth0 up
ip route add default via 172.16.28.1; ip -6 route add default via fd00:16::1'`, name, n))
	return ns
}

// sync makes the services real, in the two phases of the mode; nil takes everything away.
func (h *host) sync(services []api.ServicePort) {
	h.t.Helper()
	var want xt.Ruleset
	if services != nil {
		ports, err := h.relay.Apply(userspace.AllListeners(h.node, services, h.relay.Ports()))
		if err != nil {
			h.t.Fatal(err)
		}
		want = userspace.AllRules(h.node, services, ports)
	}
	var kernel kernelxt.Kernel
	have, err := kernel.Read(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	if err := kernel.Apply(context.Background(), xt.Diff(want, have)); err != nil {
		h.t.Fatal(err)
	}
}

// serve starts a TCP and a UDP server in the pod, that answer with the address they see and stay open.
func (h *host) serve(ns *netns.NS) {
	h.t.Helper()
	err := ns.Do(func() error {
		l, err := net.Listen("tcp", "[::]:80")
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp", "[::]:80")
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { _, _ = l.Close(), u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, plain(c.RemoteAddr())+"\n")
				go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
			}
		}()
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = u.WriteTo([]byte(plain(from)+"\n"), from)
			}
		}()
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// plain is an address without the IPv4-in-IPv6 form.
func plain(a net.Addr) string {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()).String()
}

// dial connects from a namespace, nil is the node's, and returns the connection and the answer.
func (h *host) dial(ns *netns.NS, network, to string) (c net.Conn, answer string, err error) {
	do := func() error {
		c, err = net.DialTimeout(network, to, 30*time.Second)
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 100)
		for try := 1; ; try++ {
			if network == "udp" { // the kernel drops what comes before a link is quite up
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := c.Write([]byte("x")); err != nil {
					return err
				}
			}
			n, err := c.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) && network == "udp" && try < 20 {
				continue
			}
			answer = strings.TrimSpace(string(b[:n]))
			return err
		}
	}
	if ns == nil {
		err = do()
	} else {
		err = ns.Do(do)
	}
	return c, answer, err
}

func (h *host) service(p api.Protocol) api.ServicePort {
	return api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "my-nginx-service", Port: strings.ToLower(string(p))}, Protocol: p,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.247.121"), netip.MustParseAddr("fd00:10::79")}, Port: 8080, NodePort: 30080,
		External: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		Endpoints: []api.Endpoint{
			{Addr: netip.MustParseAddrPort("172.16.28.9:80"), Ready: true}, {Addr: netip.MustParseAddrPort("[fd00:16::9]:80"), Ready: true},
		},
	}
}

// TestRows14And15 makes the walkthrough's connections, container to service and node to service, and looks at all their ends.
func TestRows14And15(t *testing.T) {
	h := newHost(t)
	h.serve(h.nginx)
	h.sync([]api.ServicePort{h.service(api.TCP), h.service(api.UDP)})
	for _, c := range []struct {
		from         string
		network, to  string
		local, proxy string // the relay's end of the client's connection, and its source towards the endpoint
	}{
		{"sshd-2", "tcp", "10.254.247.121:8080", "172.16.28.1", "172.16.28.1"},
		{"sshd-2", "udp", "10.254.247.121:8080", "172.16.28.1", "172.16.28.1"},
		{"node", "tcp", "10.254.247.121:8080", "172.17.42.31", "172.16.28.1"},
		{"node", "udp", "10.254.247.121:8080", "172.17.42.31", "172.16.28.1"},
		{"sshd-2", "tcp", "[fd00:10::79]:8080", "fd00:16::1", "fd00:16::1"},
		{"sshd-2", "udp", "[fd00:10::79]:8080", "fd00:16::1", "fd00:16::1"},
		{"node", "tcp", "[fd00:10::79]:8080", "fd00:17::31", "fd00:16::1"},
		{"node", "udp", "[fd00:10::79]:8080", "fd00:17::31", "fd00:16::1"},
		{"sshd-2", "tcp", "192.0.2.7:8080", "172.16.28.1", "172.16.28.1"},
		{"node", "tcp", "192.0.2.7:8080", "172.17.42.31", "172.16.28.1"},
		{"sshd-2", "tcp", "172.17.42.31:30080", "172.16.28.1", "172.16.28.1"},
		{"sshd-2", "udp", "172.17.42.31:30080", "172.16.28.1", "172.16.28.1"},
		{"node", "tcp", "172.17.42.31:30080", "172.17.42.31", "172.16.28.1"},
		{"node", "tcp", "127.0.0.1:30080", "172.17.42.31", "172.16.28.1"},
		{"node", "udp", "127.0.0.1:30080", "172.17.42.31", "172.16.28.1"},
		{"node", "tcp", "[::1]:30080", "fd00:17::31", "fd00:16::1"},
		{"node", "tcp", "[fd00:17::31]:30080", "fd00:17::31", "fd00:16::1"},
		{"nginx-0", "tcp", "10.254.247.121:8080", "172.16.28.1", "172.16.28.1"}, // to itself
	} {
		t.Run(strings.Join([]string{c.from, c.network, c.to}, " "), func(t *testing.T) {
			ns := map[string]*netns.NS{"sshd-2": h.sshd, "nginx-0": h.nginx}[c.from]
			conn, seen, err := h.dial(ns, c.network, c.to)
			if err != nil {
				t.Fatal(err)
			}
			client := netip.MustParseAddrPort(conn.LocalAddr().String())
			live := h.relay.Connections()
			i := len(live) - 1
			for ; i >= 0 && live[i].Client != client; i-- {
			}
			if i < 0 {
				t.Fatalf("no connection of %s among %+v", client, live)
			}
			got := live[i]
			if got.Local.Addr().String() != c.local || got.Upstream.Addr().String() != c.proxy || got.Upstream.String() != seen {
				t.Errorf("connection %+v, the endpoint sees %s", got, seen)
			}
			if c.network == "tcp" && got.Original.String() != c.to {
				t.Errorf("original destination %s, want %s", got.Original, c.to)
			}
			t.Logf("{%s -> %s} => {%s -> %s} => {%s -> %s}", got.Client, got.Original, got.Client, got.Local, got.Upstream, got.Endpoint)
			_ = conn.Close()
		})
	}
}

// TestNoEndpoints: refused at once wherever the packet comes from, and served again when an endpoint comes, on the same port.
func TestNoEndpoints(t *testing.T) {
	h := newHost(t)
	h.serve(h.nginx)
	empty := h.service(api.TCP)
	empty.Endpoints = nil
	h.sync([]api.ServicePort{h.service(api.TCP)})
	before := netstate.Of[netstate.Listener](h.relay.State())
	for range 2 {
		h.sync([]api.ServicePort{empty})
		for _, to := range []string{"10.254.247.121:8080", "[fd00:10::79]:8080", "172.17.42.31:30080", "192.0.2.7:8080"} {
			for _, ns := range []*netns.NS{h.sshd, nil} {
				var err error
				soonest := time.Hour
				for try := 0; try < 3 && soonest > 500*time.Millisecond; try++ { // the machine may stand still meanwhile
					begin := time.Now()
					if _, _, err = h.dial(ns, "tcp", to); err == nil || !strings.Contains(err.Error(), "refused") {
						break
					}
					soonest = min(soonest, time.Since(begin))
				}
				if soonest > 500*time.Millisecond {
					t.Errorf("%s (pod %v): %v after %s, want refused at once", to, ns != nil, err, soonest)
				}
			}
		}
		h.sync([]api.ServicePort{h.service(api.TCP)})
		if _, _, err := h.dial(h.sshd, "tcp", "10.254.247.121:8080"); err != nil {
			t.Error(err)
		}
	}
	if after := netstate.Of[netstate.Listener](h.relay.State()); len(after) != 1 || after[0].Addr != before[0].Addr {
		t.Errorf("listeners %v, were %v", after, before)
	}
}
