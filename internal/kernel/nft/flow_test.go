package nft_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/nftables"
)

// cluster is a node (the test's own namespace) with two pods and a client outside:
//
//	a 172.16.1.2 ── 172.16.1.1 ┐
//	b 172.16.2.2 ── 172.16.2.1 ├ node ── 192.0.2.1 ── 192.0.2.2 outside
//
// and the same in IPv6 with fd00:16:1::, fd00:16:2:: and 2001:db8::.
type cluster struct {
	hosts map[string]*netns.NS // nil: the node
	conn  *kernel.Conn
	merge *nft.Merge
	node  proxy.Node
	known []string
}

var links = []struct{ host, v4, v6 string }{
	{"a", "172.16.1", "fd00:16:1:"}, {"b", "172.16.2", "fd00:16:2:"}, {"outside", "192.0.2", "2001:db8:"},
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{conn: open(t), hosts: map[string]*netns.NS{"node": nil}, merge: nft.NewMerge(nft.INet, nft.TableName)}
	for _, l := range links {
		ns, err := netns.New("/run/netns/" + l.host)
		if err != nil {
			t.Fatal(err)
		}
		c.hosts[l.host] = ns
		noDAD(t)
		if err := ns.Do(func() error { noDAD(t); return nil }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns.Close() })
		run(t, strings.NewReplacer("H", l.host, "V4", l.v4, "V6", l.v6).Replace(
			`ip link add vH type veth peer name eth0 netns H
			ip addr add V4.1/24 dev vH; ip addr add V6:1/64 dev vH nodad; ip link set vH up
			ip -n H addr add V4.2/24 dev eth0; ip -n H addr add V6:2/64 dev eth0 nodad; ip -n H link set eth0 up
			ip -n H route add default via V4.1; ip -n H -6 route add default via V6:1`))
		t.Cleanup(func() { run(t, "ip link del v"+l.host) })
		for _, ip := range []string{l.v4 + ".2", "[" + l.v6 + ":2]"} {
			c.serve(t, l.host, ip)
		}
	}
	// The kernel makes a device's link-local address, without which it asks for no neighbour, up to a second after the link is up.
	for _, l := range links {
		run(t, strings.ReplaceAll(`for i in $(seq 3000); do
			ip -6 -br addr show dev vH scope link -tentative | grep -q fe80 && ip -n H -6 -br addr show dev eth0 scope link -tentative | grep -q fe80 && exit
			sleep 0.01
		done; echo no link-local addresses; exit 1`, "H", l.host))
	}
	// Redirects use up what the kernel lets a host have in ICMP errors.
	run(t, `ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		for i in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$i; done`)
	c.node = proxy.Node{Name: "node", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd00:16::/32")}}
	c.apply(t, append([]nft.Op{newTable()}, c.merge.Set("", nftables.Planner{}.Base(c.node))...))
	return c
}

// noDAD makes IPv6 addresses usable at once.
func noDAD(t *testing.T) {
	for _, of := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+of+"/accept_dad", []byte("0"), 0); err != nil {
			t.Error(err)
		}
	}
}

func (c *cluster) do(t *testing.T, host string, f func() error) error {
	t.Helper()
	if ns := c.hosts[host]; ns != nil {
		return ns.Do(f)
	}
	return f()
}

// serve answers on port 80, TCP and UDP, with the host's name and the client's address.
func (c *cluster) serve(t *testing.T, host, ip string) {
	t.Helper()
	err := c.do(t, host, func() error {
		l, err := net.Listen("tcp", ip+":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				s, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(s, host+" "+addrOf(s.RemoteAddr()))
				_ = s.Close()
			}
		}()
		u, err := net.ListenPacket("udp", ip+":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = u.Close() })
		go func() {
			b := make([]byte, 10)
			for {
				_, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = u.WriteTo([]byte(host+" "+addrOf(from)), from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func addrOf(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().String() }

// ask connects and returns the answer: the host that answered and the source it saw; or "refused" or "timeout". A machine that stood still, or
// a packet lost, is no timeout.
func (c *cluster) ask(t *testing.T, from, network, to string) (answer string) {
	t.Helper()
	for _, limit := range []time.Duration{200 * time.Millisecond, time.Second, 10 * time.Second} {
		if answer = c.askFor(t, from, network, to, limit); answer != "timeout" {
			break
		}
	}
	return answer
}

// askFor is ask with a limit for the connection, and one for the answer.
func (c *cluster) askFor(t *testing.T, from, network, to string, limit time.Duration) string {
	t.Helper()
	var answer string
	err := c.do(t, from, func() error {
		d := net.Dialer{Timeout: limit}
		s, err := d.Dial(network, to)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		if network == "udp" {
			if _, err := s.Write([]byte("?")); err != nil {
				return err
			}
		}
		b := make([]byte, 100)
		n, err := s.Read(b)
		answer = string(b[:n])
		return err
	})
	var timeout net.Error
	switch {
	case err == nil:
		return answer
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.EPERM): // what a datagram socket is told when a rule of the output hook rejects
		return "not permitted"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}

// set makes these services the only ones.
func (c *cluster) set(t *testing.T, services ...api.ServicePort) {
	t.Helper()
	f := map[string]nft.Table{}
	for _, name := range c.known {
		f[name] = nft.Table{}
	}
	c.known = nil
	for _, s := range services {
		name := s.Name.String() + string(s.Protocol)
		c.known = append(c.known, name)
		f[name] = nftables.Planner{}.Plan(c.node, s)
	}
	c.apply(t, c.merge.Update(f))
}

func (c *cluster) apply(t *testing.T, ops []nft.Op) {
	t.Helper()
	if err := c.conn.Apply(ops); err != nil {
		t.Fatal(err)
	}
	if nftables.Sticky(ops) {
		for _, s := range nftables.Remembered() {
			if _, err := c.conn.Forget(nft.INet, nft.TableName, s, nftables.Stale(s, c.merge.Element)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ops := nft.Diff(c.merge.Table(), read(t, c.conn)); len(ops) > 0 {
		t.Fatalf("kernel and plan differ: %v", ops)
	}
}

// service has the cluster addresses 10.254.0.1 and fd00:10::1, and endpoints on the hosts named: "a" and "b" run on the node,
// "outside" elsewhere.
func service(proto api.Protocol, hosts ...string) api.ServicePort {
	s := api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "s"}, Protocol: proto, Port: 8080,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.1"), netip.MustParseAddr("fd00:10::1")},
	}
	for _, l := range links {
		if !slices.Contains(hosts, l.host) {
			continue
		}
		for _, ip := range []string{l.v4 + ".2", l.v6 + ":2"} {
			e := api.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr(ip), 80), Ready: true, Node: "node"}
			if l.host == "outside" {
				e.Node = "other"
			}
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	return s
}

func with(s api.ServicePort, f func(*api.ServicePort)) api.ServicePort { f(&s); return s }

// flow is a packet's way: who asks for what and all answers there may be.
type flow struct {
	from, network, to string
	want              []string
}

func (c *cluster) check(t *testing.T, what string, flows ...flow) {
	t.Helper()
	for _, f := range flows {
		seen := map[string]bool{}
		for i := 0; i < 40 && len(seen) < len(f.want); i++ {
			var got string
			if slices.Contains(f.want, "timeout") {
				got = c.askFor(t, f.from, f.network, f.to, 200*time.Millisecond)
			} else {
				got = c.ask(t, f.from, f.network, f.to)
			}
			if !slices.Contains(f.want, got) {
				t.Errorf("%s: %s to %s %s: %q, want one of %q", what, f.from, f.network, f.to, got, f.want)
				break
			}
			seen[got] = true
		}
		if len(seen) < len(f.want) {
			t.Errorf("%s: %s to %s %s: seen %v, want all of %q", what, f.from, f.network, f.to, seen, f.want)
		}
	}
}

const (
	vip  = "10.254.0.1:8080"
	vip6 = "[fd00:10::1]:8080"
)

func TestClusterIP(t *testing.T) {
	c := newCluster(t)
	c.set(t, service(api.TCP, "a", "b"), service(api.UDP, "b"))
	c.check(t, "cluster address",
		flow{"a", "tcp", vip, []string{"b 172.16.1.2", "a 172.16.1.1"}}, // the second is the hairpin
		flow{"b", "tcp", vip, []string{"a 172.16.2.2", "b 172.16.2.1"}},
		flow{"a", "tcp", vip6, []string{"b fd00:16:1::2", "a fd00:16:1::1"}},
		flow{"a", "udp", vip, []string{"b 172.16.1.2"}},
		flow{"a", "udp", vip6, []string{"b fd00:16:1::2"}},
		flow{"node", "tcp", vip, []string{"a 172.16.1.1", "b 172.16.2.1"}}, // not the address of the default route
		flow{"node", "tcp", vip6, []string{"a fd00:16:1::1", "b fd00:16:2::1"}},
		flow{"node", "udp", vip, []string{"b 172.16.2.1"}},
		flow{"outside", "tcp", vip, []string{"a 172.16.1.1", "b 172.16.2.1"}},
		flow{"a", "tcp", "10.254.0.1:8081", []string{"refused"}},
		flow{"node", "udp", "10.254.0.1:8081", []string{"not permitted"}},
	)
	c.set(t, service(api.TCP), service(api.UDP))
	c.check(t, "no endpoints",
		flow{"a", "tcp", vip, []string{"refused"}}, flow{"node", "tcp", vip, []string{"refused"}},
		flow{"a", "tcp", vip6, []string{"refused"}}, flow{"node", "tcp", vip6, []string{"refused"}},
		flow{"a", "udp", vip, []string{"refused"}}, flow{"node", "udp", vip, []string{"not permitted"}},
		flow{"outside", "udp", vip6, []string{"refused"}},
	)
	c.set(t, service(api.TCP, "b"))
	c.check(t, "endpoints again", flow{"a", "tcp", vip, []string{"b 172.16.1.2"}}, flow{"node", "tcp", vip6, []string{"b fd00:16:2::1"}})
	c.set(t)
	c.check(t, "no service", flow{"a", "tcp", vip, []string{"timeout"}})
}

func TestExposed(t *testing.T) {
	c := newCluster(t)
	ports := func(s *api.ServicePort) {
		s.NodePort, s.External = 30080, []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1")}
	}
	c.set(t, with(service(api.TCP, "a", "b"), ports), with(service(api.UDP, "b"), ports))
	c.check(t, "policy Cluster",
		flow{"outside", "tcp", "192.0.2.1:30080", []string{"a 172.16.1.1", "b 172.16.2.1"}},
		flow{"outside", "tcp", "[2001:db8::1]:30080", []string{"a fd00:16:1::1", "b fd00:16:2::1"}},
		flow{"outside", "udp", "192.0.2.1:30080", []string{"b 172.16.2.1"}},
		flow{"outside", "tcp", "198.51.100.1:8080", []string{"a 172.16.1.1", "b 172.16.2.1"}},
		flow{"a", "tcp", "172.16.1.1:30080", []string{"a 172.16.1.1", "b 172.16.2.1"}},
		flow{"node", "tcp", "192.0.2.1:30080", []string{"a 172.16.1.1", "b 172.16.2.1"}},
		flow{"outside", "tcp", "192.0.2.1:30081", []string{"refused"}},
	)
	local := func(s *api.ServicePort) { ports(s); s.ExternalLocal = true }
	c.set(t, with(service(api.TCP, "a", "outside"), local), with(service(api.UDP, "outside"), local))
	c.check(t, "policy Local",
		flow{"outside", "tcp", "192.0.2.1:30080", []string{"a 192.0.2.2"}},
		flow{"outside", "tcp", "[2001:db8::1]:30080", []string{"a 2001:db8::2"}},
		flow{"outside", "tcp", "198.51.100.1:8080", []string{"a 192.0.2.2"}},
		flow{"outside", "udp", "192.0.2.1:30080", []string{"timeout"}},
		flow{"outside", "udp", "198.51.100.1:8080", []string{"timeout"}},
		flow{"b", "tcp", "198.51.100.1:8080", []string{"a 172.16.2.2", "outside 172.16.2.2"}},
		flow{"b", "udp", "192.0.2.1:30080", []string{"outside 172.16.2.2"}},
		flow{"node", "udp", "198.51.100.1:8080", []string{"outside 192.0.2.1"}},
	)
	c.set(t, with(service(api.TCP, "outside"), func(s *api.ServicePort) { s.InternalLocal = true }), with(service(api.UDP), local))
	c.check(t, "none here, none at all",
		flow{"a", "tcp", vip, []string{"timeout"}}, flow{"node", "tcp", vip, []string{"timeout"}},
		flow{"outside", "udp", "192.0.2.1:30080", []string{"refused"}}, flow{"outside", "udp", "198.51.100.1:8080", []string{"refused"}},
	)
	c.set(t, with(service(api.TCP, "a"), func(s *api.ServicePort) {
		s.LoadBalancer = []netip.Prefix{netip.MustParsePrefix("198.51.100.2/32"), netip.MustParsePrefix("198.51.100.3/32")}
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/14"), netip.MustParsePrefix("172.16.1.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	}))
	c.check(t, "source ranges",
		flow{"b", "tcp", "198.51.100.2:8080", []string{"a 172.16.1.1"}}, flow{"b", "tcp", "198.51.100.3:8080", []string{"a 172.16.1.1"}},
		flow{"outside", "tcp", "198.51.100.2:8080", []string{"timeout"}},
		flow{"outside", "tcp", vip, []string{"a 172.16.1.1"}},
	)
}

func TestAffinity(t *testing.T) {
	c := newCluster(t)
	sticky := func(hosts ...string) api.ServicePort {
		return with(service(api.TCP, hosts...), func(s *api.ServicePort) { s.AffinitySeconds = 60 })
	}
	c.set(t, sticky("a", "b"))
	for _, to := range []string{vip, vip6} {
		first := c.ask(t, "outside", "tcp", to)
		for range 20 {
			if got := c.ask(t, "outside", "tcp", to); got != first {
				t.Fatalf("%s: %q, then %q", to, first, got)
			}
		}
		other := "a"
		if strings.HasPrefix(first, "a") {
			other = "b"
		}
		c.set(t, sticky(other))
		if got := c.ask(t, "outside", "tcp", to); !strings.HasPrefix(got, other) {
			t.Errorf("%s: the endpoint %q is gone, asked again: %q", to, first, got)
		}
		c.set(t, sticky("a", "b"))
		if got := c.ask(t, "outside", "tcp", to); !strings.HasPrefix(got, other) {
			t.Errorf("%s: the client's endpoint changed back to %q", to, got)
		}
	}
}
