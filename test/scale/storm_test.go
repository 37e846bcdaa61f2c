package scale

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"weft/internal/kernel/netns"
)

var (
	stormFor     = flag.Duration("storm", 15*time.Second, "how long pods restart in TestStorm")
	stormRate    = flag.Int("storm-rate", 2000, "pod restarts a minute in TestStorm")
	stormClients = flag.Int("storm-clients", 16, "clients that connect all the while in TestStorm")
)

const (
	stormServices = 1000
	stormPods     = 3
	// goneLimit is how long after the API's word that an endpoint is gone a new connection may still be sent there.
	goneLimit = 100 * time.Millisecond
	// busy is how many times as long counts on a machine that has other work: what is measured is printed.
	busy = 5
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

func (s *storm) write(i int) {
	var all []discoveryv1.Endpoint
	for j, a := range s.pods[i] {
		all = append(all, endpoint(a, i, j))
	}
	protocol := corev1.ProtocolTCP
	if i%10 == 9 {
		protocol = corev1.ProtocolUDP
	}
	s.c.put(slicesPath, slice(i, protocol, targetPort, all...))
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

// pods is a namespace in which every address of 10.20.0.0/16 answers with its own name.
func pods(tb testing.TB) {
	tb.Helper()
	ns, err := netns.New("/run/netns/storm-pods")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ns.Close() })
	for _, line := range []string{
		"ip link add pods0 type veth peer name eth0 netns storm-pods", "ip link set pods0 up", "ip addr add 10.20.255.254/16 dev pods0",
		"nsenter --net=/run/netns/storm-pods ip link set lo up", "nsenter --net=/run/netns/storm-pods ip link set eth0 up",
		"nsenter --net=/run/netns/storm-pods ip route add local 10.20.0.0/16 dev lo",
		"nsenter --net=/run/netns/storm-pods ip route add default dev eth0",
		"ip neigh replace 10.20.255.253 lladdr 02:00:00:00:00:01 dev pods0 nud permanent",
		"nsenter --net=/run/netns/storm-pods sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
	} {
		run(tb, line)
	}
	// One hop beyond the node, so that the addresses need no neighbours of their own.
	run(tb, "nsenter --net=/run/netns/storm-pods ip addr add 10.20.255.253/32 dev eth0")
	run(tb, "nsenter --net=/run/netns/storm-pods ip route add 10.20.255.254/32 dev eth0")
	run(tb, "ip route add 10.20.255.253/32 dev pods0")
	run(tb, "ip route replace 10.20.0.0/17 via 10.20.255.253 dev pods0 onlink")
	run(tb, "ip route replace 10.20.128.0/17 via 10.20.255.253 dev pods0 onlink")
	out := make(chan net.Listener, 1)
	err = ns.Do(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", targetPort))
		out <- l
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	l := <-out
	mac(tb)
	tb.Cleanup(func() { _ = l.Close() })
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

// mac makes the permanent neighbour of the pods' side true.
func mac(tb testing.TB) {
	tb.Helper()
	run(tb, "nsenter --net=/run/netns/storm-pods ip link set eth0 address 02:00:00:00:00:01")
}

// answers is what the clients saw.
type answers struct {
	connects, failed atomic.Int64
	late             atomic.Int64 // connections to an address that had been gone for longer than the limit
	worst            atomic.Int64 // of these, in ns
	first            sync.Map     // kinds of failure, once each
}

// client connects to one service after the other until the end.
func (s *storm) client(r *rand.Rand, a *answers, end time.Time) {
	for time.Now().Before(end) {
		i := r.IntN(stormServices)
		if i%10 == 9 {
			continue // of UDP
		}
		begun := time.Now()
		who, err := ask(netip.AddrPortFrom(vip(i), servicePort))
		a.connects.Add(1)
		if err != nil {
			a.failed.Add(1)
			a.first.LoadOrStore(err.Error(), i)
			continue
		}
		gone := s.goneFor(who, begun)
		for {
			worst := a.worst.Load()
			if int64(gone) <= worst || a.worst.CompareAndSwap(worst, int64(gone)) {
				break
			}
		}
		if gone > goneLimit {
			a.late.Add(1)
		}
	}
}

// ask connects and returns who answers.
func ask(to netip.AddrPort) (who netip.Addr, err error) {
	c, err := net.DialTimeout("tcp", to.String(), 2*time.Second)
	if err != nil {
		return who, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	var b [4]byte
	if _, err := c.Read(b[:]); err != nil {
		return who, err
	}
	return netip.AddrFrom4(b), nil
}

// TestStorm restarts pods of a thousand services while clients connect: nobody may be sent to a pod that has long been gone, no service
// may be lost, and memory may not grow. With -storm 5m it is the whole story ("make storm").
func TestStorm(t *testing.T) {
	underlay(t)
	wipe(t)
	pods(t)
	s := &storm{c: newCluster(t), gone: map[netip.Addr]time.Time{}}
	s.c.put(nodesPath, node())
	for i := range stormServices {
		protocol := corev1.ProtocolTCP
		if i%10 == 9 {
			protocol = corev1.ProtocolUDP
		}
		s.c.put(servicesPath, service(i, protocol))
		for j := range stormPods {
			s.pods[i][j] = s.address()
		}
		s.write(i)
	}
	d := newAgent(t, s.c)
	d.start()
	d.settled(stormServices, time.Minute)
	a := &answers{}
	end := time.Now().Add(*stormFor)
	var wait sync.WaitGroup
	for k := range *stormClients {
		wait.Go(func() { s.client(rand.New(rand.NewPCG(1, uint64(k))), a, end) })
	}
	cpu, begun := d.processor(), time.Now()
	early, late, restarts := s.rain(d, end)
	wait.Wait()
	took := time.Since(begun)
	cpu = d.processor() - cpu
	t.Logf("%d restarts in %s, %d connections, %d failed; an endpoint was reached %s after it was gone at most, %d times more than %s after; "+
		"memory %.1f MiB early, %.1f MiB late; agent: %.1f %% of a processor", restarts, took.Round(time.Second), a.connects.Load(), a.failed.Load(),
		time.Duration(a.worst.Load()).Round(time.Microsecond), a.late.Load(), goneLimit, early, late, 100*cpu.Seconds()/took.Seconds())
	a.first.Range(func(text, i any) bool { t.Logf("service %d: %s", i, text); return true })
	if a.failed.Load() > 0 || a.connects.Load() < 100 {
		t.Errorf("%d of %d connections failed", a.failed.Load(), a.connects.Load())
	}
	if worst := time.Duration(a.worst.Load()); worst > busy*goneLimit {
		t.Errorf("an endpoint was reached %s after it was gone", worst)
	}
	if late > early*1.25+8 {
		t.Errorf("memory grew from %.1f to %.1f MiB", early, late)
	}
	s.complete(t, d)
}

// rain restarts pods at the rate until the end, and weighs the agent early and late.
func (s *storm) rain(d *daemon, end time.Time) (early, late float64, restarts int) {
	r := rand.New(rand.NewPCG(7, 7))
	tick := time.NewTicker(time.Minute / time.Duration(*stormRate))
	defer tick.Stop()
	begun := time.Now()
	weighed := begun.Add(min(time.Minute, end.Sub(begun)/3))
	for now := range tick.C {
		if now.After(end) {
			break
		}
		for due := int(now.Sub(begun).Minutes() * float64(*stormRate)); restarts < due; restarts++ { // a busy machine drops ticks
			s.restart(r.IntN(stormServices), r.IntN(stormPods))
		}
		if early == 0 && now.After(weighed) {
			early, _ = d.memory()
		}
	}
	late, _ = d.memory()
	return early, late, restarts
}

// complete checks that after the storm every service reaches its pods and no other.
func (s *storm) complete(t *testing.T, d *daemon) {
	t.Helper()
	time.Sleep(busy * goneLimit)
	for i := range stormServices {
		if i%10 == 9 {
			continue
		}
		who, err := ask(netip.AddrPortFrom(vip(i), servicePort))
		ok := false
		for _, a := range s.pods[i] {
			ok = ok || a == who
		}
		if err != nil || !ok {
			t.Errorf("after the storm service %d is answered by %s (%v), its pods are %v", i, who, err, s.pods[i])
		}
	}
	if st := d.status(); !st.Converged || st.Services != stormServices {
		t.Errorf("after the storm: %+v", st)
	}
}
