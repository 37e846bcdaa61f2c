package scale

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

var (
	stormFor     = flag.Duration("storm", 15*time.Second, "how long pods restart in TestStorm, in each mode")
	stormRate    = flag.Int("storm-rate", 2000, "pod restarts a minute in TestStorm")
	stormClients = flag.Int("storm-clients", 16, "clients that connect all the while in TestStorm")
	stormFlows   = flag.Int("storm-flows", 200, "UDP flows that keep their port all the while in TestStorm")
	stormModes   = flag.String("storm-modes", "nftables,userspace", "proxy modes of TestStorm, one after the other")
)

const (
	stormServices = 1000
	stormPods     = 3
	// goneLimit is how long after the API's word that an endpoint is gone a new connection or a datagram may still be sent there.
	goneLimit = 100 * time.Millisecond
	// busy is how many times as long counts on a machine that has other work: what is measured is printed.
	busy = 5
	// lateShare is the part of all answers that may come from an endpoint that had been gone for longer than goneLimit. Were flows not forgotten,
	// nearly all answers of those that keep their port would.
	lateShare = 0.01
)

// storm is a thousand services whose pods restart: each under another address.
type storm struct {
	c    *cluster
	pods [stormServices][stormPods]netip.Addr
	next int

	mu   sync.Mutex
	gone map[netip.Addr]time.Time // addresses that no service has any more, and since when
}

// address returns one that nobody has had for a while.
func (s *storm) address() netip.Addr {
	s.next++
	n := s.next % 60000
	return netip.AddrFrom4([4]byte{10, 20, byte(n / 250), byte(n%250 + 1)})
}

// protocol is that of a service: every tenth is UDP's.
func protocol(i int) corev1.Protocol {
	if i%10 == 9 {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

func (s *storm) write(i int) {
	var all []discoveryv1.Endpoint
	for j, a := range s.pods[i] {
		all = append(all, endpoint(a, i, j))
	}
	s.c.put(slicesPath, slice(i, protocol(i), targetPort, all...))
}

// restart gives a pod of a service another address.
func (s *storm) restart(i, j int) {
	s.mu.Lock()
	old := s.pods[i][j]
	s.pods[i][j] = s.address()
	delete(s.gone, s.pods[i][j])
	s.mu.Unlock()
	s.write(i)
	s.mu.Lock()
	s.gone[old] = time.Now()
	s.mu.Unlock()
}

// goneFor is how long before the time an address had been gone.
func (s *storm) goneFor(a netip.Addr, at time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.gone[a]; ok {
		return at.Sub(t)
	}
	return 0
}

// pods is a namespace in which every address of 10.20.0.0/16 answers with its own name, over TCP and UDP.
func pods(tb testing.TB) {
	tb.Helper()
	ns, err := netns.New("/run/netns/storm-pods")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ns.Close() })
	const in = "nsenter --net=/run/netns/storm-pods "
	for _, line := range []string{
		"ip link add pods0 type veth peer name eth0 netns storm-pods", "ip link set pods0 up", "ip addr add 10.20.255.254/16 dev pods0",
		in + "ip link set lo up", in + "ip link set eth0 up", in + "ip link set eth0 address 02:00:00:00:00:01",
		in + "ip route add local 10.20.0.0/16 dev lo", in + "ip route add default dev eth0",
		"ip neigh replace 10.20.255.253 lladdr 02:00:00:00:00:01 dev pods0 nud permanent",
		in + "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
		// One hop beyond the node, so that the addresses need no neighbours of their own.
		in + "ip addr add 10.20.255.253/32 dev eth0", in + "ip route add 10.20.255.254/32 dev eth0", "ip route add 10.20.255.253/32 dev pods0",
		"ip route replace 10.20.0.0/17 via 10.20.255.253 dev pods0 onlink", "ip route replace 10.20.128.0/17 via 10.20.255.253 dev pods0 onlink",
	} {
		daemon.Run(tb, line)
	}
	var l net.Listener
	var u *net.UDPConn
	if err = ns.Do(func() error {
		if l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", targetPort)); err != nil {
			return err
		}
		u, err = listenAny(targetPort)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = l.Close(), u.Close() })
	go echoWho(u)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = c.Write(netip.MustParseAddrPort(c.LocalAddr().String()).Addr().AsSlice())
				_ = c.Close()
			}()
		}
	}()
}

// answers is what clients of one kind saw.
type answers struct {
	asked, failed atomic.Int64
	mu            sync.Mutex
	gone          []time.Duration  // of answers by an endpoint that was gone when it was asked, for how long it had been
	first         map[string]int64 // kinds of failure, and how often
}

func (a *answers) fail(err error) {
	a.failed.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.first == nil {
		a.first = map[string]int64{}
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 { // without the addresses
		text = text[i+2:]
	}
	a.first[text]++
}

func (a *answers) by(gone time.Duration) {
	if gone <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = append(a.gone, gone)
}

// report prints what was seen, and checks it; held is how long the machine held up this test.
func (a *answers) report(t *testing.T, what string, held time.Duration) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	late, worst := 0, time.Duration(0)
	for _, d := range a.gone {
		worst = max(worst, d)
		if d > goneLimit {
			late++
		}
	}
	t.Logf("%s: %d, %d failed %v; %d answered by an endpoint that was gone when asked, p50 %s, p99 %s, at most %s, %d later than %s", what,
		a.asked.Load(), a.failed.Load(), a.first, len(a.gone), daemon.Quantile(a.gone, 0.5).Round(10*time.Microsecond),
		daemon.Quantile(a.gone, 0.99).Round(10*time.Microsecond), worst.Round(10*time.Microsecond), late, goneLimit)
	if limit := busy * (goneLimit + held); worst > limit || float64(late) > lateShare*float64(a.asked.Load()) {
		t.Errorf("%s: an endpoint answered %s after it was gone (limit %s), %d later than %s", what, worst, limit, late, goneLimit)
	}
	if a.asked.Load() < 100 {
		t.Errorf("%s: only %d", what, a.asked.Load())
	}
}

// clientPause is how long a client does nothing between two connections: a machine that is busy with clients only shows little of the agent.
const clientPause = 15 * time.Millisecond

// client connects to one service after the other until the end, over TCP or with a datagram from a port of its own.
func (s *storm) client(r *rand.Rand, tcp, udp *answers, end time.Time) {
	for ; time.Now().Before(end); time.Sleep(clientPause) {
		i := r.IntN(stormServices)
		a, ask := tcp, askTCP
		if protocol(i) == corev1.ProtocolUDP {
			a, ask = udp, askUDP
		}
		begun := time.Now()
		who, err := ask(netip.AddrPortFrom(vip(i), servicePort))
		a.asked.Add(1)
		if err != nil {
			a.fail(err)
			continue
		}
		a.by(s.goneFor(who, begun))
	}
}

// askTCP connects and returns who answers.
func askTCP(to netip.AddrPort) (who netip.Addr, err error) {
	c, err := net.DialTimeout("tcp", to.String(), 10*time.Second)
	if err != nil {
		return who, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var b [4]byte
	if _, err := c.Read(b[:]); err != nil {
		return who, err
	}
	return netip.AddrFrom4(b), nil
}

// TestStorm restarts pods of a thousand services while clients connect, in each mode: nobody may be sent to a pod that has long been gone,
// over TCP or UDP, no UDP flow may stay stuck to one, no service may be lost, and memory may not grow. With -storm 5m it is the whole
// story ("make storm").
func TestStorm(t *testing.T) {
	underlay(t)
	pods(t)
	for mode := range strings.SplitSeq(*stormModes, ",") {
		t.Run(mode, func(t *testing.T) {
			wipe(t)
			t.Cleanup(func() { wipe(t) })
			storms(t, mode)
		})
	}
}

func storms(t *testing.T, mode string) {
	s := &storm{c: newCluster(t), gone: map[netip.Addr]time.Time{}}
	s.c.put(nodesPath, node())
	for i := range stormServices {
		s.c.put(servicesPath, service(i, protocol(i)))
		for j := range stormPods {
			s.pods[i][j] = s.address()
		}
		s.write(i)
	}
	d := newAgent(t, s.c, "--proxy-mode", mode)
	d.Start()
	d.settled(stormServices, time.Minute)
	var tcp, udp answers
	end := time.Now().Add(*stormFor)
	var wait sync.WaitGroup
	for k := range *stormClients {
		wait.Go(func() { s.client(rand.New(rand.NewPCG(1, uint64(k))), &tcp, &udp, end) })
	}
	flows := s.flows(t, *stormFlows, end)
	held := &late{}
	wait.Go(func() { held.watch(end) })
	cpu, begun := d.Processor(), time.Now()
	memory, restarts := s.rain(d, end)
	wait.Wait()
	took := time.Since(begun)
	cpu = d.Processor() - cpu
	t.Logf("mode %s: %d restarts in %s; agent: %.1f %% of a processor; this test itself was held up %s at most", mode, restarts,
		took.Round(time.Second), 100*cpu.Seconds()/took.Seconds(), held.worst.Round(100*time.Microsecond))
	for what, a := range map[string]*answers{"TCP connections": &tcp, "datagrams of new flows": &udp} {
		a.report(t, what, held.worst)
	}
	if n := tcp.failed.Load(); n > 0 {
		t.Errorf("%d of %d connections failed", n, tcp.asked.Load())
	}
	flows.report(t, held.worst)
	s.flat(t, memory)
	s.complete(t, d, mode)
}

// rain restarts pods at the rate until the end, and weighs the agent all the while.
func (s *storm) rain(d *process, end time.Time) (memory []float64, restarts int) {
	r := rand.New(rand.NewPCG(7, 7))
	tick := time.NewTicker(time.Minute / time.Duration(*stormRate))
	defer tick.Stop()
	begun := time.Now()
	for now := range tick.C {
		if now.After(end) {
			break
		}
		for due := int(now.Sub(begun).Minutes() * float64(*stormRate)); restarts < due; restarts++ { // a busy machine drops ticks
			s.restart(r.IntN(stormServices), r.IntN(stormPods))
		}
		if now.Sub(begun) > time.Duration(len(memory)+1)*end.Sub(begun)/weighings {
			rss, _, _ := d.Memory()
			memory = append(memory, rss)
		}
	}
	return memory, restarts
}

// complete checks that after the storm every service reaches its pods and no other.
func (s *storm) complete(t *testing.T, d *process, mode string) {
	t.Helper()
	time.Sleep(busy * goneLimit)
	d.settled(stormServices, time.Minute)
	for end := time.Now().Add(time.Minute); mode == "nftables" && endpoints(t) != stormServices*stormPods && time.Now().Before(end); {
		time.Sleep(gap)
	}
	for i := range stormServices {
		ask := askTCP
		if protocol(i) == corev1.ProtocolUDP {
			ask = askUDP
		}
		who, err := ask(netip.AddrPortFrom(vip(i), servicePort))
		if err != nil || !slices.Contains(s.pods[i][:], who) {
			t.Errorf("after the storm service %d is answered by %s (%v), its pods are %v", i, who, err, s.pods[i])
		}
	}
	st := d.Status()
	t.Logf("%d stale UDP flows forgotten; %d ops in %d steps", st.ForgottenFlows, st.Rules.Ops, st.Rules.Steps)
	if !st.Converged || st.Services != stormServices {
		t.Errorf("after the storm: %+v", st)
	}
	if have := 0; mode == "nftables" {
		if have = endpoints(t); have != stormServices*stormPods {
			t.Errorf("after the storm the kernel has %d endpoints, want %d", have, stormServices*stormPods)
		}
	}
}
