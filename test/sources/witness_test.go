package sources_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// witness notes what the receivers saw of each packet: "HOST SOURCE".
type witness struct {
	mu    sync.Mutex
	calls map[string]chan string
}

func newWitness() *witness { return &witness{calls: map[string]chan string{}} }

// expect returns the channel on which the packet's fate arrives.
func (w *witness) expect(id string) <-chan string {
	ch := make(chan string, 4)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[id] = ch
	return ch
}

func (w *witness) saw(host, id string, from net.Addr) {
	w.mu.Lock()
	ch := w.calls[id]
	w.mu.Unlock()
	a, err := netip.ParseAddrPort(from.String())
	if ch == nil || err != nil {
		return
	}
	select {
	case ch <- host + " " + a.Addr().Unmap().WithZone("").String():
	default:
	}
}

const podPort = 80 // every host listens here, and on multicastPort where it has joined the group

const multicastPort = 90

var groups = [2]netip.Addr{netip.MustParseAddr("239.5.5.5"), netip.MustParseAddr("ff05::5:5")}

// listen makes a host note what arrives.
func (l *lab) listen(t *testing.T, host string) {
	t.Helper()
	err := l.ns[host].Do(func() error {
		s, err := net.Listen("tcp", ":"+strconv.Itoa(podPort))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = s.Close() })
		go l.accept(host, s)
		u, err := net.ListenPacket("udp", ":"+strconv.Itoa(podPort))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = u.Close() })
		go l.receive(host, u)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// join makes a host a member of the multicast groups, on its interface.
func (l *lab) join(t *testing.T, host string) {
	t.Helper()
	err := l.ns[host].Do(func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		for i, g := range groups {
			u, err := net.ListenMulticastUDP([2]string{"udp4", "udp6"}[i], dev, &net.UDPAddr{IP: g.AsSlice(), Port: multicastPort})
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = u.Close() })
			go l.receive(host, u)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) accept(host string, s net.Listener) {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			id, err := io.ReadAll(io.LimitReader(c, 32))
			if err == nil {
				l.seen.saw(host, string(bytes.TrimSpace(id)), c.RemoteAddr())
			}
		}()
	}
}

func (l *lab) receive(host string, u net.PacketConn) {
	b := make([]byte, 64)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		l.seen.saw(host, string(b[:n]), from)
	}
}

// packet is one to send.
type packet struct {
	from    string
	src     netip.Addr // zero: the kernel's choice
	network string     // "tcp" or "udp"
	to      netip.AddrPort
	port    int // source port, its own
}

// patience is how long a packet that shall arrive may take; despair how long one that shall not is waited for.
const (
	patience = 15 * time.Second
	despair  = 150 * time.Millisecond
	again    = 300 * time.Millisecond // a datagram may be lost while a tunnel's first handshake is under way
)

// send sends the packet and returns what the receiver saw, or why not.
func (l *lab) send(p packet, wait time.Duration) string {
	id := fmt.Sprintf("%s-%d", p.network, p.port)
	fate := l.seen.expect(id)
	var c net.Conn
	err := l.ns[p.from].Do(func() error {
		d := net.Dialer{Timeout: wait}
		if p.network == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: p.src.AsSlice(), Port: p.port}
		} else {
			d.LocalAddr = &net.TCPAddr{IP: p.src.AsSlice(), Port: p.port}
		}
		if !p.src.IsValid() && p.to.Addr().Zone() == "" {
			// without an address the family follows from the destination
			d.LocalAddr = localPort(p)
		}
		var err error
		c, err = d.Dial(p.network, p.to.String())
		return err
	})
	if err != nil {
		return "not sent: " + strings.TrimPrefix(err.Error(), "dial ")
	}
	defer c.Close()
	give := time.NewTimer(wait)
	defer give.Stop()
	repeat := time.NewTicker(again)
	defer repeat.Stop()
	for first := true; ; first = false {
		if first || p.network == "udp" {
			if _, err := c.Write([]byte(id)); err != nil && first {
				return "not sent: " + err.Error()
			}
		}
		if t, ok := c.(*net.TCPConn); ok && first {
			_ = t.CloseWrite()
		}
		select {
		case saw := <-fate:
			return saw
		case <-give.C:
			return "lost"
		case <-repeat.C:
		}
	}
}

func localPort(p packet) net.Addr {
	any := net.IPv4zero
	if p.to.Addr().Is6() {
		any = net.IPv6unspecified
	}
	if p.network == "udp" {
		return &net.UDPAddr{IP: any, Port: p.port}
	}
	return &net.TCPAddr{IP: any, Port: p.port}
}
