package scale

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

// BenchmarkConnect measures connect and one byte from a client beside the node to a pod behind it: by the address of one of 10,000 services,
// against the pod's own. Both take turns; each round gives a ratio, and the ratios' median counts.
func BenchmarkConnect(b *testing.B) {
	underlay(b)
	wipe(b)
	c := newCluster(b)
	c.fill(10000)
	client, pod := beside(b, "client", "10.1.7"), beside(b, "pod", "10.1.8")
	to := netip.MustParseAddr("10.1.8.2")
	const served = 4321
	c.put(slicesPath, slice(served, corev1.ProtocolTCP, targetPort, endpoint(to, served, 0)))
	d := newAgent(b, c)
	d.Start()
	d.settled(10000, time.Minute)
	// Two ports, so that the answers of the one way are not those of connections by the other that the kernel still remembers: it would have to
	// find another source port for a new connection by the service, again and again.
	const direct = targetPort + 1
	serve(b, pod, targetPort)
	serve(b, pod, direct)
	paths := []netip.AddrPort{netip.AddrPortFrom(to, direct), netip.AddrPortFrom(vip(served), servicePort)}
	for _, parallel := range []int{1, 64} {
		name := map[int]string{1: "one", 64: "parallel=64"}[parallel]
		b.Run(name, func(b *testing.B) {
			connects(b, client, paths[1], 200, parallel) // warm
			var ratios, straight, service []float64
			round := 0
			for b.Loop() {
				var took [2]time.Duration
				const turns = 10
				for turn := range turns {
					for k := range 2 {
						i := (k + turn + round) % 2
						begun := time.Now()
						all := connects(b, client, paths[i], max(60, 8*parallel), parallel)
						if took[i] += daemon.Quantile(all, 0.5); parallel > 1 { // who waits for whom says little: how long all take together does
							took[i] += time.Since(begun)/time.Duration(len(all)) - daemon.Quantile(all, 0.5)
						}
					}
				}
				round++
				straight, service = append(straight, daemon.Millis(took[0])/turns), append(service, daemon.Millis(took[1])/turns)
				ratios = append(ratios, float64(took[1])/float64(took[0]))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(middle(ratios), "ratio")
			b.ReportMetric(1000*middle(straight), "direct-us")
			b.ReportMetric(1000*middle(service), "service-us")
		})
	}
}

func middle(all []float64) float64 { return slices.Sorted(slices.Values(all))[len(all)/2] }

// beside is a namespace with an address in the /24, whose router is this one.
func beside(tb testing.TB, name, network string) *netns.NS {
	tb.Helper()
	ns, err := netns.New("/run/netns/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ns.Close() })
	in := "nsenter --net=/run/netns/" + name + " ip "
	for _, line := range []string{
		"ip link add " + name + "0 type veth peer name eth0 netns " + name, "ip addr add " + network + ".1/24 dev " + name + "0",
		"ip link set " + name + "0 up", in + "link set lo up", in + "addr add " + network + ".2/24 dev eth0", in + "link set eth0 up",
		in + "route add default via " + network + ".1",
	} {
		daemon.Run(tb, line)
	}
	return ns
}

// serve answers every connection with one byte.
func serve(tb testing.TB, ns *netns.NS, port int) {
	tb.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4zero, Port: port})
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
			_, _ = c.Write([]byte{1})
			_ = c.Close()
		}
	}()
}

// connects opens n connections, parallel at a time, and reads a byte of each.
func connects(tb testing.TB, from *netns.NS, to netip.AddrPort, n, parallel int) []time.Duration {
	tb.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var wait sync.WaitGroup
	for range parallel {
		wait.Go(func() {
			err := from.Do(func() error {
				for range max(n/parallel, 1) {
					start := time.Now()
					c, err := net.DialTimeout("tcp", to.String(), 10*time.Second)
					if err != nil {
						return err
					}
					_, err = io.ReadFull(c, make([]byte, 1))
					took := time.Since(start)
					// By a reset, so that the pod remembers no port as in use: thousands of them later a new connection would wait for its SYN's
					// repetition, on either way.
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
					if err != nil {
						return err
					}
					mu.Lock()
					all = append(all, took)
					mu.Unlock()
				}
				return nil
			})
			if err != nil {
				tb.Error(err)
			}
		})
	}
	wait.Wait()
	return all
}
