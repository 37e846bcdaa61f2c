package datagram_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/netns"
)

// bulk sends TCP as fast as it goes for the time given and returns the bytes per second that arrived.
func bulk(tb testing.TB, from, to *netns.NS, a netip.Addr, d time.Duration) float64 {
	tb.Helper()
	l := listen(tb, to, a)
	defer l.Close()
	var got atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1<<18)
		for {
			n, err := c.Read(buf)
			got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	c, err := dial(from, l.Addr())
	must(tb, err)
	send(tb, c, d/4) // warm
	start, before := time.Now(), got.Load()
	send(tb, c, d)
	n, took := got.Load()-before, time.Since(start)
	must(tb, c.Close())
	<-done
	return float64(n) / took.Seconds()
}

func send(tb testing.TB, c net.Conn, d time.Duration) {
	tb.Helper()
	buf := make([]byte, 1<<18)
	for end := time.Now().Add(d); time.Now().Before(end); {
		must(tb, c.SetWriteDeadline(time.Now().Add(10*time.Second)))
		if _, err := c.Write(buf); err != nil && !errors.Is(err, io.EOF) {
			tb.Fatal(err)
		}
	}
}

// BenchmarkBulk measures TCP between pods against TCP between their hosts in the same run: the ratio is what counts.
func BenchmarkBulk(b *testing.B) {
	h1, h2 := newHosts(b)
	h1.apply(h2.lease)
	h2.apply(h1.lease)
	var under, over float64
	var underCPU, overCPU time.Duration
	for b.Loop() {
		t0 := cpu(b)
		under += bulk(b, h1.ns, h2.ns, h2.addr, 500*time.Millisecond)
		t1 := cpu(b)
		over += bulk(b, h1.pod, h2.pod, h2.podV4, 500*time.Millisecond)
		underCPU, overCPU = underCPU+t1-t0, overCPU+cpu(b)-t1
	}
	b.ReportMetric(over/under, "ratio")
	b.ReportMetric(under/float64(b.N)*8/1e9, "underlay-Gbit/s")
	b.ReportMetric(over/float64(b.N)*8/1e9, "pods-Gbit/s")
	// Bytes for the same processor time, which does not depend on what else the machine does.
	b.ReportMetric(over/overCPU.Seconds()/(under/underCPU.Seconds()), "cpu-ratio")
}

// cpu is the processor time of both hosts, pods and the relays: all are this process.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	must(tb, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
