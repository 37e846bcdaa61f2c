package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/netstate"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

var anyPort = netip.MustParseAddrPort("[::]:0")

func tcpService(endpoints ...netip.AddrPort) netstate.Listener {
	return netstate.Listener{Service: "default/a:", Protocol: "TCP", Addr: anyPort, Endpoints: endpoints}
}

// start returns a relay with one listener and its address on loopback.
func start(t *testing.T, o Options, l netstate.Listener) (*Relay, netip.AddrPort) {
	t.Helper()
	r := New(o)
	t.Cleanup(func() { _ = r.Close() })
	ports, err := r.Apply([]netstate.Listener{l})
	if err != nil {
		t.Fatal(err)
	}
	return r, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ports[l.Key()])
}

// backend is a TCP server on loopback that answers each connection with serve.
func backend(t *testing.T, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); serve(c) })
		}
	})
	return addrPort(l.Addr())
}

// naming answers with a name and closes.
func naming(t *testing.T, name string) netip.AddrPort {
	return backend(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, name) })
}

// refusing is an address nobody listens on, each n another: its port is none that the kernel gives to a socket.
func refusing(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 9, n}), 9)
}

func connect(t *testing.T, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func ask(t *testing.T, to netip.AddrPort) string {
	t.Helper()
	c := connect(t, to)
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// outcome connects and returns how that, or reading, fails: a reset may come during either.
func outcome(to netip.AddrPort) error {
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.ReadAll(c)
	return err
}

// eventually waits until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestRoundRobin(t *testing.T) {
	_, addr := start(t, Options{}, tcpService(naming(t, "a"), naming(t, "b"), naming(t, "c")))
	got := ""
	for range 9 {
		got += ask(t, addr)
	}
	if got != "abcabcabc" {
		t.Errorf("endpoints in turn: %s", got)
	}
	v6 := netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
	if got := ask(t, v6); got != "a" {
		t.Errorf("over IPv6: %q", got)
	}
}

// inTime runs what holds only if took, the time that counts, is less than the limit; again where the machine stood still for longer. f
// sets everything up anew each time and says what is wrong.
func inTime(t *testing.T, limit time.Duration, f func() (took time.Duration, wrong string)) {
	t.Helper()
	for range 20 {
		took, wrong := f()
		if wrong == "" {
			return
		}
		if took < limit {
			t.Fatal(wrong)
		}
		t.Logf("%s: after %s, again", wrong, took)
	}
	t.Fatalf("it never took less than %s", limit)
}

func TestRefused(t *testing.T) {
	inTime(t, downFor, func() (time.Duration, string) {
		begun := time.Now()
		r, addr := start(t, Options{}, tcpService(refusing(1), naming(t, "a"), refusing(2), refusing(3)))
		for range 6 {
			if got := ask(t, addr); got != "a" {
				t.Fatalf("got %q", got)
			}
		}
		if s := r.Stats(); s.Retries != 3 {
			return time.Since(begun), fmt.Sprintf("%d retries, want 3: one for each dead endpoint, which then rests", s.Retries)
		}
		return 0, ""
	})
	_, addr := start(t, Options{}, tcpService(refusing(1), refusing(2)))
	_, addr0 := start(t, Options{}, tcpService())
	for _, addr := range []netip.AddrPort{addr, addr0} {
		if err := outcome(addr); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("nobody there: %v, want a reset", err)
		}
	}
}

func TestTimeout(t *testing.T) {
	good := naming(t, "a")
	silent := netip.MustParseAddrPort("192.0.2.1:80")
	var mu sync.Mutex
	var waits []time.Duration // at most
	var ends []time.Time
	o := Options{
		DialTimeouts: []time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 60 * time.Millisecond},
		Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			if to == good {
				return dial(ctx, network, to)
			}
			end, _ := ctx.Deadline()
			wait := time.Until(end)
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			waits, ends = append(waits, wait), append(ends, end)
			return nil, ctx.Err()
		},
	}
	inTime(t, o.DialTimeouts[0], func() (time.Duration, string) {
		_, addr := start(t, o, tcpService(silent, good))
		begun := time.Now()
		if got := ask(t, addr); got != "a" {
			return time.Since(begun) - o.DialTimeouts[0], fmt.Sprintf("got %q", got)
		}
		return 0, ""
	})
	_, addr := start(t, o, tcpService(silent))
	mu.Lock()
	waits, ends = nil, nil
	mu.Unlock()
	if err := outcome(addr); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("only a silent endpoint: %v, want a reset", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(waits) != 3 {
		t.Fatalf("waited %v, want three growing times", waits)
	}
	// However slow the machine is: no wait is longer than its time, and the end of one is at least its time after the end of that before.
	for i, want := range o.DialTimeouts {
		if waits[i] > want || i > 0 && ends[i].Sub(ends[i-1]) < want {
			t.Errorf("waited %v, until %v: number %d shall be %s", waits, ends, i+1, want)
		}
	}
}

func TestAffinity(t *testing.T) {
	a, b, c := naming(t, "a"), naming(t, "b"), naming(t, "c")
	l := tcpService(a, b, c)
	l.Affinity = 1
	var addr netip.AddrPort
	var second string
	inTime(t, time.Second, func() (time.Duration, string) {
		begun := time.Now()
		l.Endpoints = []netip.AddrPort{a, b, c}
		var r *Relay
		r, addr = start(t, Options{}, l)
		first := ask(t, addr)
		for range 5 {
			if got := ask(t, addr); got != first {
				return time.Since(begun), fmt.Sprintf("got %q after %q", got, first)
			}
		}
		l.Endpoints = l.Endpoints[1:] // a is gone
		if _, err := r.Apply([]netstate.Listener{l}); err != nil {
			t.Fatal(err)
		}
		if second = ask(t, addr); second == first || ask(t, addr) != second {
			return time.Since(begun), fmt.Sprintf("got %q after %q went", second, first)
		}
		return 0, ""
	})
	time.Sleep(1100 * time.Millisecond)
	if got := ask(t, addr); got == second {
		t.Errorf("still %q after the timeout", got)
	}
}

func TestFileLimit(t *testing.T) {
	echo := backend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	var logged bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return logged.Write(b)
	}), nil))
	r, addr := start(t, Options{MaxFiles: 2 + 2*filesTCP, Log: log}, tcpService(echo)) // two connections
	works := func(c *net.TCPConn, wait time.Duration) bool {
		_ = c.SetDeadline(time.Now().Add(wait))
		_, _ = c.Write([]byte("x"))
		_, err := c.Read(make([]byte, 1))
		return err == nil
	}
	a, b := connect(t, addr), connect(t, addr)
	if !works(a, 30*time.Second) || !works(b, 30*time.Second) {
		t.Fatal("two connections don't fit")
	}
	c, d := connect(t, addr), connect(t, addr)
	if works(c, 50*time.Millisecond) || works(d, 50*time.Millisecond) {
		t.Error("more connections than file descriptors")
	}
	if s := r.Stats(); s.Limited == 0 || s.Files != s.MaxFiles {
		t.Errorf("stats %+v", s)
	}
	_ = a.Close()
	_ = b.Close()
	if !works(c, 30*time.Second) || !works(d, 30*time.Second) {
		t.Error("the waiting connections were forgotten")
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(logged.String(), "out of file descriptors"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logged.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestCloseEndsSessions(t *testing.T) {
	server := backend(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	r, addr := start(t, Options{}, tcpService(server))
	c := connect(t, addr)
	eventually(t, "session", func() bool { return len(r.Connections()) == 1 })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client saw %v", err)
	}
	if s := r.Stats(); s.Active != 0 || s.Files != 0 {
		t.Errorf("stats %+v", s)
	}
}
