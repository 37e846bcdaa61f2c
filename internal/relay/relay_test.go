package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
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

func TestHalfClose(t *testing.T) {
	echo := backend(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // until the client has said all
		_, _ = c.Write(append([]byte("you said "), b...))
	})
	_, addr := start(t, Options{}, tcpService(echo))
	c := connect(t, addr)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "you said hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestReset(t *testing.T) {
	end := make(chan error, 1)
	server := backend(t, func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		end <- err
	})
	r, addr := start(t, Options{}, tcpService(server))
	c := connect(t, addr)
	eventually(t, "session", func() bool { return len(r.Connections()) == 1 })
	reset(c)
	if err := <-end; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server saw %v, want the client's reset", err)
	}
	eventually(t, "session ends", func() bool { s := r.Stats(); return s.Active == 0 && s.Files == 0 })
}

// TestBulk sends random bytes both ways at once, in bursts and pauses, so that buffers and pipes take turns.
func TestBulk(t *testing.T) {
	const size = 24 << 20
	send := func(c *net.TCPConn, seed byte) [32]byte {
		h := sha256.New()
		src := rand.NewChaCha8([32]byte{seed})
		for left := size; left > 0; {
			n := min(left, 1+int(src.Uint64()%(1<<20)))
			b := make([]byte, n)
			_, _ = src.Read(b)
			h.Write(b)
			if _, err := c.Write(b); err != nil {
				t.Error(err)
				return [32]byte{}
			}
			if left -= n; n < 1<<15 {
				time.Sleep(bulkIdle + 10*time.Millisecond)
			}
		}
		_ = c.CloseWrite()
		return [32]byte(h.Sum(nil))
	}
	receive := func(c *net.TCPConn) [32]byte {
		h := sha256.New()
		if n, err := io.Copy(h, c); err != nil || n != size {
			t.Errorf("received %d bytes, %v", n, err)
		}
		return [32]byte(h.Sum(nil))
	}
	var sums [4][32]byte
	var all sync.WaitGroup
	all.Add(2)
	server := backend(t, func(c *net.TCPConn) {
		go func() { defer all.Done(); sums[0] = send(c, 1) }()
		sums[1] = receive(c)
		all.Done()
		all.Wait()
	})
	r, addr := start(t, Options{}, tcpService(server))
	c := connect(t, addr)
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	all.Go(func() { sums[2] = receive(c) })
	sums[3] = send(c, 2)
	all.Wait()
	if sums[0] != sums[2] || sums[1] != sums[3] {
		t.Error("bytes changed on the way")
	}
	eventually(t, "pipes are given back", func() bool {
		r.pipes.mu.Lock()
		defer r.pipes.mu.Unlock()
		return r.pipes.used == 0
	})
}

func TestEndpointsChange(t *testing.T) {
	echo := backend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	other := naming(t, "other")
	r, addr := start(t, Options{}, tcpService(echo))
	c := connect(t, addr)
	say := func(s string) {
		t.Helper()
		b := make([]byte, len(s))
		_, werr := io.WriteString(c, s)
		if _, err := io.ReadFull(c, b); err != nil || werr != nil || string(b) != s {
			t.Errorf("echo %q, %v, %v", b, werr, err)
		}
	}
	say("before")
	ports, err := r.Apply([]netstate.Listener{tcpService(other)})
	if err != nil || ports["default/a: TCP"] != addr.Port() {
		t.Fatalf("ports %v, %v: want the same port %d", ports, err, addr.Port())
	}
	say("after") // to an endpoint that is removed: left to finish
	if got := ask(t, addr); got != "other" {
		t.Errorf("new connection answered by %q", got)
	}
	if _, err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	say("without a listener")
	if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("listener is still there: %v", err)
	}
	eventually(t, "only the old connection is left", func() bool { return r.Stats().Active == 1 })
	got := r.Connections()
	if len(got) != 1 || got[0].Endpoint != echo || got[0].Client != addrPort(c.LocalAddr()) || got[0].Local != addr || got[0].Original.IsValid() {
		t.Errorf("connections %+v", got)
	}
}

func TestApply(t *testing.T) {
	taken, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := New(Options{Log: slog.New(slog.DiscardHandler)})
	defer r.Close()
	a := tcpService()
	a.Addr = netip.AddrPortFrom(netip.IPv6Unspecified(), addrPort(taken.Addr()).Port())
	u := a
	u.Protocol = "UDP"
	bad := netstate.Listener{Service: "default/s:", Protocol: "SCTP", Addr: anyPort}
	ports, err := r.Apply([]netstate.Listener{a, u, bad, {Service: "default/none:", Protocol: "TCP"}})
	if p := ports[a.Key()]; p == 0 || p == a.Addr.Port() {
		t.Errorf("port %d: another than the taken one is wanted", p)
	}
	if ports[u.Key()] != a.Addr.Port() {
		t.Errorf("UDP port %d, want %d", ports[u.Key()], a.Addr.Port())
	}
	for _, text := range []string{
		`open listener for default/s: SCTP: protocol "SCTP": the relay knows TCP and UDP`, "open listener for default/none: TCP: it has no address",
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
	// What is open is what is wanted: nothing changes, and another relay takes the ports over.
	state := r.State()
	if _, err := r.Apply(netstate.Of[netstate.Listener](state)); err != nil || !netstate.Equal(state, r.State()) {
		t.Errorf("second Apply: %v, state\n%s, was\n%s", err, r.State(), state)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	next := New(Options{})
	defer next.Close()
	if _, err := next.Apply(netstate.Of[netstate.Listener](state)); err != nil || !netstate.Equal(state, next.State()) {
		t.Errorf("after a restart: %v, state\n%s, was\n%s", err, next.State(), state)
	}
	if _, err := r.Apply(nil); err == nil {
		t.Error("a closed relay takes listeners")
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
