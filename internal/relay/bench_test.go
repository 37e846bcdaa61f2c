package relay

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"weft/internal/netstate"
)

// benchBackend answers a byte with a byte, and swallows or sends as asked.
func benchBackend(b *testing.B, buffer int) netip.AddrPort {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, buffer)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if n == 1 {
						_, _ = c.Write(buf[:1])
					}
				}
			}()
		}
	}()
	return addrPort(l.Addr())
}

// through runs a benchmark to the backend directly and through a relay, so that one run has the ratio.
func through(b *testing.B, run func(b *testing.B, to netip.AddrPort)) {
	to := benchBackend(b, 256<<10)
	r := New(Options{})
	b.Cleanup(func() { _ = r.Close() })
	ports, err := r.Apply([]netstate.Listener{tcpService(to)})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("direct", func(b *testing.B) { run(b, to) })
	b.Run("relay", func(b *testing.B) {
		run(b, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ports["default/a: TCP"]))
	})
}

func BenchmarkConnect(b *testing.B) {
	through(b, func(b *testing.B, to netip.AddrPort) {
		one := make([]byte, 1)
		for b.Loop() {
			c, err := net.Dial("tcp", to.String())
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.Write(one); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, one); err != nil {
				b.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT: the ports would run out
			_ = c.Close()
		}
	})
}

func BenchmarkBulk(b *testing.B) {
	through(b, func(b *testing.B, to netip.AddrPort) {
		c, err := net.Dial("tcp", to.String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		buf := make([]byte, 256<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPingPong(b *testing.B) {
	through(b, func(b *testing.B, to netip.AddrPort) {
		c, err := net.Dial("tcp", to.String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		one := make([]byte, 1)
		for b.Loop() {
			_, _ = c.Write(one)
			if _, err := io.ReadFull(c, one); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkIdle reports the memory of idle connections through the relay, client and server ends included.
func BenchmarkIdle(b *testing.B) {
	const n = 2000
	to := benchBackend(b, 1)
	r := New(Options{})
	defer r.Close()
	ports, err := r.Apply([]netstate.Listener{tcpService(to)})
	if err != nil {
		b.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ports["default/a: TCP"])
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var conns []net.Conn
		for range n {
			c, err := net.Dial("tcp", addr.String())
			if err != nil {
				b.Fatal(err)
			}
			conns = append(conns, c)
		}
		for deadline := time.Now().Add(10 * time.Second); r.Stats().Active < n && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n, "B/conn")
		for _, c := range conns {
			_ = c.Close()
		}
	}
}
