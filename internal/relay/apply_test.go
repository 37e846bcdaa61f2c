package relay

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"weft/internal/netstate"
)

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
	if len(got) != 1 || got[0].Endpoint != echo || got[0].Client != addrPort(c.LocalAddr()) || got[0].Local != addr ||
		got[0].Original.IsValid() {
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
	fixed := a
	fixed.Service, fixed.Fixed = "default/fixed:", true
	bad := netstate.Listener{Service: "default/s:", Protocol: "SCTP", Addr: anyPort}
	ports, err := r.Apply([]netstate.Listener{a, u, fixed, bad, {Service: "default/none:", Protocol: "TCP"}})
	if p := ports[a.Key()]; p == 0 || p == a.Addr.Port() {
		t.Errorf("port %d: another than the taken one is wanted", p)
	}
	if ports[u.Key()] != a.Addr.Port() {
		t.Errorf("UDP port %d, want %d", ports[u.Key()], a.Addr.Port())
	}
	if p, ok := ports[fixed.Key()]; ok || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port %d, error %v: a fixed port that another program has is not replaced", p, err)
	}
	for _, text := range []string{
		`open listener for default/s: SCTP: protocol "SCTP": the relay knows TCP and UDP`,
		"open listener for default/none: TCP: it has no address",
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
