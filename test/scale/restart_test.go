package scale

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

// restartServices is how many services are in place in TestRestart; WEFT_RESTART_SERVICES is another number.
const restartServices = 2000

const (
	probedServices = 8 // of them, half TCP and half UDP
	probedPods     = 4 // endpoints of each
	restarts       = 3
)

// TestRestart kills the agent and starts it again while clients connect to services, send datagrams to them, and use connections that they
// have had all the while: nobody notices, and the agent changes nothing.
func TestRestart(t *testing.T) {
	n := restartServices
	if text := os.Getenv("WEFT_RESTART_SERVICES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < probedServices {
			t.Fatalf("WEFT_RESTART_SERVICES=%s: want a number from %d on", text, probedServices)
		}
	}
	underlay(t)
	wipe(t)
	c := newCluster(t)
	c.fill(n)
	client, pod := beside(t, "client", "10.1.7"), beside(t, "pod", "10.1.8")
	p := prober{client: client, tcp: c.probed(corev1.ProtocolTCP), udp: c.probed(corev1.ProtocolUDP), stop: make(chan struct{})}
	for j := 1; j < probedPods; j++ {
		daemon.Run(t, fmt.Sprintf("nsenter --net=%s ip addr add %s/24 dev eth0", pod.Path(), probedPod(j)))
	}
	echo(t, pod)
	d := newAgent(t, c)
	d.Start()
	d.settled(n, 2*time.Minute)
	p.start()
	e := watchTables(t)
	for i := range restarts {
		p.more(t, i)
		e.drain()
		d.Kill()
		p.more(t, i)
		begun := d.Start()
		s, at := d.settled(n, 2*time.Minute)
		p.more(t, i)
		if s.Rules.FirstOps != 0 || s.Network.FirstOps != 0 {
			t.Errorf("restart %d: %d ops for the rules, %d for the network, want none", i, s.Rules.FirstOps, s.Network.FirstOps)
		}
		if _, changed := e.next(time.Millisecond); changed {
			t.Errorf("restart %d: the kernel tells of changed rules", i)
		}
		t.Logf("restart %d with %d services: in place after %s", i, n, at.Sub(begun).Round(time.Millisecond))
	}
	close(p.stop)
	p.wait.Wait()
	p.report(t)
}

// probed are the services whose endpoints are the test's own pods.
func (c *cluster) probed(protocol corev1.Protocol) (out []netip.AddrPort) {
	first := 0
	if protocol == corev1.ProtocolUDP {
		first = probedServices / 2
	}
	for i := first; i < first+probedServices/2; i++ {
		var all []discoveryv1.Endpoint
		for j := range probedPods {
			all = append(all, endpoint(probedPod(j), i, j))
		}
		c.put(servicesPath, service(i, protocol))
		c.put(slicesPath, slice(i, protocol, targetPort, all...))
		out = append(out, netip.AddrPortFrom(vip(i), servicePort))
	}
	return out
}

func probedPod(j int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 8, byte(2 + j)}) }

// echo answers in the pods' namespace: over TCP with one byte and then with what it gets, over UDP with what it gets.
func echo(tb testing.TB, ns *netns.NS) {
	tb.Helper()
	var l *net.TCPListener
	var datagrams [probedPods]*net.UDPConn
	err := ns.Do(func() (err error) {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: targetPort})
		for j := range datagrams { // one for each address: answers come from where they were asked
			if err == nil {
				datagrams[j], err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(probedPod(j), targetPort)))
			}
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = c.Write([]byte{1})
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	for _, u := range datagrams {
		tb.Cleanup(func() { _ = u.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := u.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				_, _ = u.WriteToUDPAddrPort(b[:n], from)
			}
		}()
	}
}

// prober is clients and what they saw.
type prober struct {
	client   *netns.NS
	tcp, udp []netip.AddrPort
	stop     chan struct{}
	wait     sync.WaitGroup

	connects, datagrams, held atomic.Int64 // done without loss
	failed, lost, repeated    atomic.Int64 // connections, datagrams, segments that TCP sent again to connect
	late                      atomic.Int64 // the same on connections that are held: a busy machine is reason enough
	first                     sync.Map     // kinds of failure
}

// patience is how long an answer may take on a busy machine.
const patience = 10 * time.Second

func (p *prober) start() {
	for k := range 4 {
		p.inside(func() { p.connect(k) })
		p.inside(func() { p.send(k) })
		p.inside(func() { p.hold(k) })
	}
}

// inside runs a client in its namespace.
func (p *prober) inside(f func()) {
	p.wait.Go(func() {
		if err := p.client.Do(func() error { f(); return nil }); err != nil {
			p.fail(&p.failed, err)
		}
	})
}

func (p *prober) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

func (p *prober) fail(what *atomic.Int64, err error) {
	what.Add(1)
	p.first.LoadOrStore(err.Error(), true)
}

// dial connects to a service and waits for its byte.
func (p *prober) dial(to netip.AddrPort) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", to.String(), patience)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// retransmitted is how many segments a connection sent again: each stands for a lost packet, also those that delayed nobody much.
func retransmitted(c *net.TCPConn) (n int64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int64(info.Total_retrans)
		}
	})
	return n
}

// connect makes one connection after the other, to each service in turn.
func (p *prober) connect(k int) {
	for i := k; !p.stopped(); i++ {
		c, err := p.dial(p.tcp[i%len(p.tcp)])
		if err != nil {
			p.fail(&p.failed, err)
			continue
		}
		p.repeated.Add(retransmitted(c))
		_ = c.Close()
		p.connects.Add(1)
	}
}

// hold uses one connection all the while.
func (p *prober) hold(k int) {
	c, err := p.dial(p.tcp[k%len(p.tcp)])
	if err != nil {
		p.fail(&p.failed, err)
		return
	}
	defer c.Close()
	b := make([]byte, 8)
	for !p.stopped() {
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := c.Write(b)
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		if err != nil {
			p.fail(&p.failed, err)
			return
		}
		p.held.Add(1)
		time.Sleep(time.Millisecond)
	}
	p.late.Add(retransmitted(c))
}

// burst is how many datagrams come from one port of the client before it takes another.
const burst = 20

// send sends numbered datagrams, and counts those that are not answered.
func (p *prober) send(k int) {
	for i := k; !p.stopped(); i++ {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(p.udp[i%len(p.udp)]))
		if err != nil {
			p.fail(&p.lost, err)
			continue
		}
		answered := make(chan map[byte]bool, 1)
		go func() { answered <- numbers(c) }()
		for seq := range byte(burst) {
			if _, err := c.Write([]byte{seq}); err != nil {
				p.fail(&p.lost, err)
			}
			time.Sleep(time.Millisecond)
		}
		n := int64(len(<-answered))
		p.datagrams.Add(n)
		p.lost.Add(burst - n)
		_ = c.Close()
	}
}

// numbers are those of the answers, of which there shall be burst.
func numbers(c *net.UDPConn) map[byte]bool {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	have, b := map[byte]bool{}, make([]byte, 100)
	for len(have) < burst {
		n, err := c.Read(b)
		if err != nil {
			break
		}
		if n == 1 {
			have[b[0]] = true
		}
	}
	return have
}

// more waits until every kind of client got on.
func (p *prober) more(t *testing.T, restart int) {
	t.Helper()
	all := []*atomic.Int64{&p.connects, &p.datagrams, &p.held}
	var goal [3]int64
	for i, n := range all {
		goal[i] = n.Load() + 100
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if all[0].Load() >= goal[0] && all[1].Load() >= goal[1] && all[2].Load() >= goal[2] {
			return
		}
	}
	t.Fatalf("restart %d: clients get no answers: %d failed, %d datagrams lost", restart, p.failed.Load(), p.lost.Load())
}

func (p *prober) report(t *testing.T) {
	t.Helper()
	t.Logf("%d restarts: %d connections, %d failed; %d datagrams, %d lost; %d exchanges on connections held all the while; "+
		"segments sent again: %d to connect, %d on connections held", restarts, p.connects.Load(), p.failed.Load(), p.datagrams.Load(),
		p.lost.Load(), p.held.Load(), p.repeated.Load(), p.late.Load())
	p.first.Range(func(text, _ any) bool { t.Log(text); return true })
	if p.failed.Load()+p.lost.Load() > 0 {
		t.Errorf("%d connections failed, %d datagrams were lost", p.failed.Load(), p.lost.Load())
	}
	if p.repeated.Load() > 0 {
		t.Errorf("%d packets were lost when connecting", p.repeated.Load())
	}
}
