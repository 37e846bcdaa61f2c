package relay

import (
	"bytes"
	"context"
	"errors"
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

// refusing is an address nobody listens on.
func refusing(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return addrPort(l.Addr())
}

func connect(t *testing.T, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
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
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
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

func TestRefused(t *testing.T) {
	r, addr := start(t, Options{}, tcpService(refusing(t), naming(t, "a"), refusing(t), refusing(t)))
	for range 6 {
		if got := ask(t, addr); got != "a" {
			t.Fatalf("got %q", got)
		}
	}
	if s := r.Stats(); s.Retries != 3 {
		t.Errorf("%d retries, want 3: one for each dead endpoint, which then rests", s.Retries)
	}
	_, addr = start(t, Options{}, tcpService(refusing(t), refusing(t)))
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
	var waits []time.Duration
	o := Options{
		DialTimeouts: []time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 60 * time.Millisecond},
		Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			if to == good {
				return dial(ctx, network, to)
			}
			begin := time.Now()
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, time.Since(begin).Round(20*time.Millisecond))
			return nil, ctx.Err()
		},
	}
	_, addr := start(t, o, tcpService(silent, good))
	if got := ask(t, addr); got != "a" {
		t.Errorf("got %q", got)
	}
	_, addr = start(t, o, tcpService(silent))
	mu.Lock()
	waits = nil
	mu.Unlock()
	if err := outcome(addr); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("only a silent endpoint: %v, want a reset", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(waits) != 3 || waits[0] >= waits[2] {
		t.Errorf("waited %v, want three growing times", waits)
	}
}

func TestAffinity(t *testing.T) {
	l := tcpService(naming(t, "a"), naming(t, "b"), naming(t, "c"))
	l.Affinity = 1
	r, addr := start(t, Options{}, l)
	first := ask(t, addr)
	for range 5 {
		if got := ask(t, addr); got != first {
			t.Fatalf("got %q after %q", got, first)
		}
	}
	l.Endpoints = l.Endpoints[1:] // a is gone
	if _, err := r.Apply([]netstate.Listener{l}); err != nil {
		t.Fatal(err)
	}
	second := ask(t, addr)
	if second == first || ask(t, addr) != second {
		t.Errorf("got %q after %q went", second, first)
	}
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
	if !works(a, time.Second) || !works(b, time.Second) {
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
	if !works(c, time.Second) || !works(d, time.Second) {
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
