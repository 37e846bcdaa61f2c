package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"weft/internal/netstate"
)

func draining(l netstate.Listener) []netstate.Listener {
	l.Drain = true
	return []netstate.Listener{l}
}

// TestDrainTCP: what is under way is accepted for a while, then the listener goes and the connections stay.
func TestDrainTCP(t *testing.T) {
	echo := backend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	r, addr := start(t, Options{}, tcpService(echo))
	r.linger.tcp = time.Hour
	say := func(c io.ReadWriter) {
		t.Helper()
		b := make([]byte, 2)
		_, werr := io.WriteString(c, "hi")
		if _, err := io.ReadFull(c, b); err != nil || werr != nil {
			t.Errorf("echo: %v, %v", werr, err)
		}
	}
	old := connect(t, addr)
	say(old)
	if _, err := r.Apply(draining(tcpService(echo))); err != nil || r.Draining() != 1 {
		t.Fatalf("%d drain, %v", r.Draining(), err)
	}
	late := connect(t, addr)
	say(late)
	r.linger.tcp = time.Millisecond
	eventually(t, "the listener closes", func() bool {
		if _, err := r.Apply(draining(tcpService(echo))); err != nil {
			t.Error(err)
		}
		return r.Draining() == 0
	})
	if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the listener is still there: %v", err)
	}
	say(old)
	say(late)
	if ports, err := r.Apply(draining(tcpService(echo))); err != nil || len(ports) != 0 {
		t.Errorf("a listener was opened to drain: %v, %v", ports, err)
	}
}

// TestDrainUDP: the port is told as long as there are sessions, and stays a little longer.
func TestDrainUDP(t *testing.T) {
	const idle = 300 * time.Millisecond
	a := udpBackend(t, "a")
	var r *Relay
	var say func(string) string
	inTime(t, idle, func() (time.Duration, string) {
		var addr netip.AddrPort
		r, addr = start(t, Options{UDPIdle: idle}, udpService(a))
		r.linger.udp = time.Hour
		say = udpClient(t, addr)
		begun := time.Now()
		if got := say("1"); got != "a1" {
			t.Fatal(got)
		}
		ports, err := r.Apply(draining(udpService(a)))
		if err != nil || ports[udpService(a).Key()] != addr.Port() {
			return time.Since(begun), fmt.Sprintf("%v, %v", ports, err)
		}
		if got := say("2"); got != "a2" {
			return time.Since(begun), "the session does not go on: " + got
		}
		return 0, ""
	})
	eventually(t, "the session is idle", func() bool {
		ports, err := r.Apply(draining(udpService(a)))
		return err == nil && len(ports) == 0 && r.Draining() == 1
	})
	if got := say("3"); got != "a3" {
		t.Errorf("a datagram under way is lost: %s", got)
	}
	r.linger.udp = time.Millisecond
	eventually(t, "the listener closes", func() bool {
		_, err := r.Apply(draining(udpService(a)))
		return err == nil && r.Draining() == 0
	})
}

// TestDrainEnds: a listener that is wanted again goes on, and an endpoint that goes takes its sessions along.
func TestDrainEnds(t *testing.T) {
	a, b := udpBackend(t, "a"), udpBackend(t, "b")
	r, addr := start(t, Options{}, udpService(a))
	say := udpClient(t, addr)
	if got := say("1"); got != "a1" {
		t.Fatal(got)
	}
	apply := func(l ...netstate.Listener) map[string]uint16 {
		t.Helper()
		ports, err := r.Apply(l)
		if err != nil {
			t.Fatal(err)
		}
		return ports
	}
	apply(draining(udpService(a))...)
	if ports := apply(udpService(a)); ports[udpService(a).Key()] != addr.Port() || r.Draining() != 0 {
		t.Errorf("wanted again: %v, %d drain", ports, r.Draining())
	}
	apply(draining(udpService(b))...)
	eventually(t, "the session with the endpoint that is gone ends", func() bool { return r.Stats().Active == 0 })
	apply()
	if r.Draining() != 0 || len(r.Ports()) != 0 {
		t.Error("a service that is gone keeps its listener")
	}
}
