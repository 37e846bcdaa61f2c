package flows_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/explain"
	"weft/internal/kernel/netns"
	"weft/internal/netstate"
	"weft/internal/packet"
)

// The cluster: the test's own network namespace is the node. Each host hangs on it by a link of its own, on which the node has the
// address that ends in 1 and the host the one that ends in 2.
//
//	a, b      pods of the node
//	away      a pod of another node
//	outside   a client outside the cluster, the node's default gateway
var links = []struct{ host, v4, v6 string }{
	{"a", "172.16.1", "fd00:16:1:"}, {"b", "172.16.2", "fd00:16:2:"}, {"away", "172.16.9", "fd00:16:9:"}, {"outside", "192.0.2", "2001:db8:"},
}

// addrOn is an address on a host's link: the host's own, or the node's.
func addrOn(link string, node, v6 bool) netip.Addr {
	for _, l := range links {
		if l.host != link {
			continue
		}
		a := l.v4 + "."
		if v6 {
			a = l.v6 + ":"
		}
		if node {
			return netip.MustParseAddr(a + "1")
		}
		return netip.MustParseAddr(a + "2")
	}
	return netip.Addr{}
}

// nameOf names the source that a host sees: a host, "node" for the node's address on the link to that host, "node:LINK" for the one on
// another link, "lo".
func nameOf(src netip.Addr, seenBy string) string {
	if src.IsLoopback() {
		return "lo"
	}
	if slices.Contains(balancers, src) {
		return "lb"
	}
	for _, l := range links {
		v6 := src.Is6()
		switch src {
		case addrOn(l.host, false, v6):
			return l.host
		case addrOn(l.host, true, v6):
			if l.host == seenBy || seenBy == "node" {
				return "node"
			}
			return "node:" + l.host
		}
	}
	return src.String()
}

// cluster is the hosts for real, and the same for explain.
type cluster struct {
	ns    map[string]*netns.NS // nil: the node
	world func(rules []explain.Rules, listeners []netstate.Listener) explain.World
	// port is the last source port of a datagram. Each has its own: the kernel remembers for a while where the one before it went.
	port int
}

const (
	podPort  = 80    // endpoints listen here
	port     = 8080  // of the service; the node's own process listens there and on the NodePort: what no rule takes is seen
	nodePort = 30080 // of the service
)

// balancers are the load balancer addresses. The node has them too, so that a packet nobody stops gets somewhere.
var balancers = []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:1::2")}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	netns.Need(t)
	c := &cluster{ns: map[string]*netns.NS{"node": nil}, world: world, port: 10000}
	sysctls := `for c in all default; do echo 0 >/proc/sys/net/ipv6/conf/$c/accept_dad; done
		echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
		for c in all default; do echo 0 >/proc/sys/net/ipv4/conf/$c/send_redirects; done
		`
	run(t, sysctls+"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	for _, l := range links {
		ns, err := netns.New("/run/netns/" + l.host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns.Close() })
		c.ns[l.host] = ns
		if err := ns.Do(func() error { run(t, sysctls); return nil }); err != nil {
			t.Fatal(err)
		}
		run(t, strings.NewReplacer("H", l.host, "V4", l.v4, "V6", l.v6).Replace(
			`ip link add vH type veth peer name eth0 netns H
			ip addr add V4.1/24 dev vH; ip addr add V6:1/64 dev vH nodad; ip link set vH up
			ip -n H addr add V4.2/24 dev eth0; ip -n H addr add V6:2/64 dev eth0 nodad; ip -n H link set eth0 up; ip -n H link set lo up
			ip -n H route add default via V4.1; ip -n H -6 route add default via V6:1`))
		t.Cleanup(func() { run(t, "ip link del v"+l.host) })
	}
	run(t, "ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2")
	for _, lb := range balancers {
		run(t, "ip addr add "+netip.PrefixFrom(lb, lb.BitLen()).String()+" dev lo "+map[bool]string{true: "nodad"}[lb.Is6()])
	}
	t.Cleanup(func() { run(t, "ip addr flush dev lo scope global") })
	for _, l := range links {
		for _, v6 := range []bool{false, true} {
			c.serve(t, l.host, netip.AddrPortFrom(addrOn(l.host, false, v6), podPort))
		}
	}
	for _, p := range []uint16{nodePort, port} { // on each address, so that UDP answers come from it; on loopback the relay may listen
		for _, v6 := range []bool{false, true} {
			for _, l := range links {
				c.serve(t, "node", netip.AddrPortFrom(addrOn(l.host, true, v6), p))
			}
		}
	}
	for _, lb := range balancers {
		c.serve(t, "node", netip.AddrPortFrom(lb, port))
	}
	return c
}

func run(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// world is the cluster as explain knows it.
func world(rules []explain.Rules, listeners []netstate.Listener) explain.World {
	node := &explain.Host{Name: "node", State: netstate.New(), Rules: rules}
	for _, l := range listeners {
		node.State.Add(l)
	}
	w := explain.World{Hosts: []*explain.Host{node}}
	for _, lb := range balancers {
		node.State.Add(netstate.Addr{Dev: "lo", Prefix: netip.PrefixFrom(lb, lb.BitLen())})
	}
	for _, l := range links {
		path, dev := "/pod/"+l.host, "v"+l.host
		node.State.Add(netstate.Link{Name: dev, Type: netstate.TypeVeth, Up: true, Peer: netstate.Peer{Name: "eth0", Netns: path}})
		h := &explain.Host{Name: l.host, Pod: true, Netns: path, State: netstate.New()}
		for _, v6 := range []bool{false, true} {
			bits, all := 24, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if v6 {
				bits, all = 64, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			own, gw := addrOn(l.host, false, v6), addrOn(l.host, true, v6)
			node.State.Add(netstate.Addr{Dev: dev, Prefix: netip.PrefixFrom(gw, bits)})
			h.State.Add(netstate.Addr{Dev: "eth0", Prefix: netip.PrefixFrom(own, bits)}, netstate.Route{Dst: all, Via: gw, Dev: "eth0"})
			if l.host == "outside" {
				node.State.Add(netstate.Route{Dst: all, Via: own, Dev: dev})
			}
		}
		w.Hosts = append(w.Hosts, h)
	}
	return w
}

// explain says what becomes of a packet: "HOST<SOURCE", "refused" or "timeout".
func (c *cluster) explain(t *testing.T, r ruleset, from, proto string, to netip.AddrPort, k int) string {
	t.Helper()
	w := c.world(nil, nil)
	w = c.world([]explain.Rules{r.rules(w.Hosts[0].Local)}, r.listeners)
	choose := func(all []netip.AddrPort) netip.AddrPort { return all[k%len(all)] }
	trace, err := explain.Walk(w, from, packet.Flow{Proto: proto, Dst: to}, choose)
	switch {
	case err != nil: // the packet goes to and fro between the node and its gateway
		return "timeout"
	case trace.Verdict == explain.Delivered && trace.End == "node" && to.Addr().IsLoopback() && to.Port() == nodePort:
		return "refused" // no process listens there
	case trace.Verdict == explain.Delivered:
		return trace.End + "<" + nameOf(trace.Flows[len(trace.Flows)-1].Src.Addr(), trace.End)
	case trace.Verdict == explain.Rejected:
		return "refused"
	}
	return "timeout"
}

// serve answers with the host's name and the client's address.
func (c *cluster) serve(t *testing.T, host string, on netip.AddrPort) {
	t.Helper()
	family := "4"
	if on.Addr().Is6() {
		family = "6"
	}
	answer := func(client net.Addr) string {
		return host + "<" + nameOf(netip.MustParseAddrPort(client.String()).Addr().Unmap(), host)
	}
	err := c.do(host, func() error {
		l, err := net.Listen("tcp"+family, on.String())
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp"+family, on.String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close(); _ = u.Close() })
		go func() {
			for {
				s, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(s, answer(s.RemoteAddr()))
				_ = s.Close()
			}
		}()
		go func() {
			b := make([]byte, 10)
			for {
				_, client, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = u.WriteTo([]byte(answer(client)), client)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) do(host string, f func() error) error {
	if ns := c.ns[host]; ns != nil {
		return ns.Do(f)
	}
	return f()
}

// ask connects for real and returns what explain returns, or "not permitted": what a datagram socket of the node is told of a packet that
// a rule dropped or rejected on its way out.
func (c *cluster) ask(from, network string, to netip.AddrPort, patience time.Duration) string {
	var answer string
	err := c.do(from, func() error {
		d := net.Dialer{Timeout: patience}
		if network == "udp" {
			c.port++
			d.LocalAddr = &net.UDPAddr{Port: c.port}
		}
		s, err := d.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
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
	case errors.Is(err, unix.EPERM):
		return "not permitted"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}
