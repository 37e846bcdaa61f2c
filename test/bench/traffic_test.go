package bench

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

// opener opens connections one after the other, each to read the byte that the server sends at once, by system calls that block:
// Go's poller and scheduler would be in every path's time alike and blur what the paths differ in.
type opener struct {
	ask chan int
	got chan []time.Duration
	err chan error
}

func newOpener(tb testing.TB, c *contestant) *opener {
	tb.Helper()
	o := &opener{ask: make(chan int), got: make(chan []time.Duration), err: make(chan error, 2)}
	addr := unix.SockaddrInet4{Addr: c.at.As4()}
	port := make(chan int, 1)
	go func() { o.err <- c.to.Do(func() error { return serveByte(&addr, port) }) }()
	select {
	case addr.Port = <-port:
	case err := <-o.err:
		tb.Fatal(err)
	}
	go func() {
		err := c.from.Do(func() error {
			for n := range o.ask {
				took := make([]time.Duration, n)
				for i := range took {
					var err error
					if took[i], err = openOnce(&addr); err != nil {
						return err
					}
				}
				o.got <- took
			}
			return nil
		})
		if err != nil {
			o.err <- err
		}
	}()
	tb.Cleanup(func() { close(o.ask) })
	return o
}

// take opens n connections and returns how long each took.
func (o *opener) take(tb testing.TB, n int) []time.Duration {
	tb.Helper()
	o.ask <- n
	select {
	case took := <-o.got:
		return took
	case err := <-o.err:
		tb.Fatal(err)
		return nil
	}
}

func openOnce(to *unix.SockaddrInet4) (time.Duration, error) {
	var one [1]byte
	begun := time.Now()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		return 0, err
	}
	n, err := unix.Read(fd, one[:])
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return time.Since(begun), err
}

// serveByte answers connections with a byte each, until the process ends.
func serveByte(at *unix.SockaddrInet4, port chan<- int) error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: at.Addr}), unix.Listen(l, 128)); err != nil {
		return err
	}
	own, err := unix.Getsockname(l)
	if err != nil {
		return err
	}
	port <- own.(*unix.SockaddrInet4).Port
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		_, _ = unix.Write(fd, []byte{1})
		_ = unix.Close(fd)
	}
}

// stream is a connection that is sent through as fast as it goes.
type stream struct {
	conn net.Conn
	got  atomic.Int64
	buf  []byte
}

func newStream(tb testing.TB, c *contestant) *stream {
	tb.Helper()
	s := &stream{buf: make([]byte, 1<<18)}
	l := listen(tb, c.to, c.at)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		_ = l.Close()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, 1<<18)
		for {
			n, err := conn.Read(buf)
			s.got.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	err := c.from.Do(func() (err error) {
		s.conn, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = s.conn.Close()
		<-ended
	})
	return s
}

func listen(tb testing.TB, ns *netns.NS, at netip.Addr) (l net.Listener) {
	tb.Helper()
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// send sends for a while and returns the bytes per second that arrived, and per second of processor time: both hosts are this
// process, as far as the kernel does their work in its name.
func (s *stream) send(tb testing.TB, d time.Duration) (rate, perCPU float64) {
	tb.Helper()
	start, before, cpu := time.Now(), s.got.Load(), processor(tb)
	for end := start.Add(d); time.Now().Before(end); {
		_ = s.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := s.conn.Write(s.buf); err != nil {
			tb.Fatal(err)
		}
	}
	n := float64(s.got.Load() - before)
	return n / time.Since(start).Seconds(), n / (processor(tb) - cpu).Seconds()
}

func processor(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
