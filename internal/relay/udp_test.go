package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weft/internal/netstate"
)

func udpService(endpoints ...netip.AddrPort) netstate.Listener {
	return netstate.Listener{Service: "default/dns:", Protocol: "UDP", Addr: anyPort, Endpoints: endpoints}
}

// udpBackend answers every datagram with its name and what it got.
func udpBackend(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(name), b[:n]...), from)
		}
	}()
	return addrPort(c.LocalAddr())
}

func udpClient(t *testing.T, to netip.AddrPort) func(string) string {
	t.Helper()
	return udpClientFor(t, to, 30*time.Second)
}

// udpClientFor waits so long for an answer.
func udpClientFor(t *testing.T, to netip.AddrPort, wait time.Duration) func(string) string {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return func(s string) string {
		_ = c.SetDeadline(time.Now().Add(wait))
		if _, err := c.Write([]byte(s)); err != nil {
			return err.Error()
		}
		b := make([]byte, maxDatagram)
		n, err := c.Read(b)
		if err != nil {
			return err.Error()
		}
		return string(b[:n])
	}
}

func TestUDP(t *testing.T) {
	a, b := udpBackend(t, "a"), udpBackend(t, "b")
	r, addr := start(t, Options{}, udpService(a, b))
	one, two := udpClient(t, addr), udpClient(t, netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port()))
	for _, s := range []string{"1", "", "333"} {
		if got := one(s); got != "a"+s {
			t.Errorf("first client got %q", got)
		}
		if got := two(s); got != "b"+s {
			t.Errorf("second client got %q", got)
		}
	}
	big := string(make([]byte, 60000))
	if got := one(big); got != "a"+big {
		t.Errorf("a large datagram came back with %d bytes", len(got))
	}
	if c := r.Connections(); len(c) != 2 || c[0].Endpoint != a || c[0].Local != addr || c[1].Endpoint != b {
		t.Errorf("connections %+v", c)
	}
	if _, err := r.Apply([]netstate.Listener{udpService(b)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "session with the removed endpoint ends", func() bool { return len(r.Connections()) == 1 })
	if got := one("x"); got != "bx" {
		t.Errorf("after the endpoint went: %q", got)
	}
}

// TestUDPAnswerAddress: the answer comes from the address the client sent to, though the socket is for all addresses.
func TestUDPAnswerAddress(t *testing.T) {
	_, addr := start(t, Options{}, udpService(udpBackend(t, "a")))
	for _, ip := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"} {
		// a connected socket drops answers from elsewhere
		ask := udpClient(t, netip.AddrPortFrom(netip.MustParseAddr(ip), addr.Port()))
		if got := ask("x"); got != "ax" {
			t.Errorf("%s: %q", ip, got)
		}
	}
}

func TestUDPIdle(t *testing.T) {
	const idle = time.Second
	var r *Relay
	var ask func(string) string
	inTime(t, idle, func() (longest time.Duration, wrong string) {
		var addr netip.AddrPort
		r, addr = start(t, Options{UDPIdle: idle}, udpService(udpBackend(t, "a")))
		ask = udpClient(t, addr)
		last := time.Now()
		for range 60 { // longer than UDPIdle in all, each pause far shorter
			if got := ask("x"); got != "ax" {
				t.Fatal(got)
			}
			longest = max(longest, time.Since(last))
			last = time.Now()
			time.Sleep(20 * time.Millisecond)
		}
		longest = max(longest, time.Since(last))
		if s := r.Stats(); s.Accepted != 1 || s.Active != 1 {
			return longest, fmt.Sprintf("a session in use ended: %+v", s)
		}
		return 0, ""
	})
	eventually(t, "idle session ends", func() bool { s := r.Stats(); return s.Active == 0 && s.Files == 0 })
	if got := ask("x"); got != "ax" {
		t.Error(got)
	}
}

func TestUDPRefused(t *testing.T) {
	r, addr := start(t, Options{}, udpService(refusing(1), udpBackend(t, "a")))
	ask := udpClientFor(t, addr, time.Second)
	eventually(t, "the living endpoint answers", func() bool { return ask("x") == "ax" })
	if s := r.Stats(); s.Accepted > 3 {
		t.Errorf("%d sessions for one client", s.Accepted)
	}
	_, addr = start(t, Options{}, udpService())
	c := udpClientFor(t, addr, time.Second)
	if got := c("x"); got == "" {
		t.Error("an answer without endpoints")
	}
}

func TestUDPLimit(t *testing.T) {
	r, addr := start(t, Options{MaxFiles: 2 + 2}, udpService(udpBackend(t, "a")))
	for range 2 {
		if got := udpClient(t, addr)("x"); got != "ax" {
			t.Fatal(got)
		}
	}
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "datagram beyond the limit is counted", func() bool { s := r.Stats(); return s.Limited == 1 && s.Lost == 1 })
}

// TestUDPEndpointGoesMeanwhile takes an endpoint away between its choice for a session and the session: nobody may stay with it.
func TestUDPEndpointGoesMeanwhile(t *testing.T) {
	a, b := udpBackend(t, "a"), udpBackend(t, "b")
	var relay atomic.Pointer[Relay]
	o := Options{Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		c, err := dial(ctx, network, to)
		if to == a {
			if _, err := relay.Load().Apply([]netstate.Listener{udpService(b)}); err != nil {
				t.Error(err)
			}
		}
		return c, err
	}}
	r, addr := start(t, o, udpService(a, b))
	relay.Store(r)
	if got := udpClient(t, addr)("x"); got != "bx" {
		t.Errorf("the first datagram was answered by %q, whose endpoint is gone", got)
	}
}
