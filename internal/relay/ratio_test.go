package relay_test

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
)

// BenchmarkUserspace measures pod to pod and pod to service in turns and reports the medians of the ratios: the time to connect and get a
// byte, and the throughput of one connection. Client, relay and server share the processors: what a byte costs of these is reported as well.
func BenchmarkUserspace(b *testing.B) {
	h := newHost(b)
	if err := h.nginx.Do(func() error { return swallowAll(b) }); err != nil {
		b.Fatal(err)
	}
	h.sync([]api.ServicePort{h.service(api.TCP)})
	const direct, service = "172.16.28.9:80", "10.254.247.121:8080"
	const rounds, connects, bytes = 15, 50, 64 << 20
	before := pipeEnds()
	for b.Loop() {
		var connect, bulk, cost []float64
		err := h.sshd.Do(func() error {
			for range rounds {
				var took [4]time.Duration
				var errs [4]error
				took[0], errs[0] = connectMany(direct, connects)
				took[1], errs[1] = connectMany(service, connects)
				begun := processor(b)
				took[2], errs[2] = sendMuch(direct, bytes)
				between := processor(b)
				took[3], errs[3] = sendMuch(service, bytes)
				cost = append(cost, float64(processor(b)-between)/float64(between-begun))
				for _, err := range errs {
					if err != nil {
						return err
					}
				}
				connect = append(connect, float64(took[1])/float64(took[0]))
				bulk = append(bulk, float64(took[2])/float64(took[3]))
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		slices.Sort(connect)
		slices.Sort(bulk)
		slices.Sort(cost)
		b.ReportMetric(connect[rounds/2], "connect-ratio")
		b.ReportMetric(bulk[rounds/2], "bulk-ratio")
		b.ReportMetric(cost[rounds/2], "cpu-for-a-byte-ratio")
		b.ReportMetric(float64(pipeEnds()-before), "pipe-ends") // 0: the user's pipes were used up, bytes went through buffers
	}
}

// processor is the processor time of this process, which client, relay and server are.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pipeEnds counts the process's open ends of pipes.
func pipeEnds() int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range all {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// swallowAll listens on port 80 where it is called.
func swallowAll(b *testing.B) error {
	l, err := net.Listen("tcp", "[::]:80")
	if err != nil {
		return err
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go swallow(c)
		}
	}()
	return nil
}

func connectMany(to string, n int) (time.Duration, error) {
	start := time.Now()
	one := []byte{1}
	for range n {
		c, err := net.Dial("tcp", to)
		if err != nil {
			return 0, err
		}
		if _, err := c.Write(one); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, one); err != nil {
			return 0, err
		}
		_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT: the ports would run out
		_ = c.Close()
	}
	return time.Since(start), nil
}

// sendMuch sends so many bytes, and waits until the other side has read them all and closes.
func sendMuch(to string, bytes int) (time.Duration, error) {
	c, err := net.Dial("tcp", to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	start := time.Now()
	b := make([]byte, 256<<10)
	for left := bytes; left > 0; left -= len(b) {
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}
