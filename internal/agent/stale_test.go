package agent

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestCloseStale: connections from an address that is gone end at once, others stay.
func TestCloseStale(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	stale, good := dial("127.0.0.7"), dial("127.0.0.8")
	gone := vanished([]netip.Addr{netip.MustParseAddr("127.0.0.7"), netip.MustParseAddr("127.0.0.8")}, []netip.Addr{netip.MustParseAddr("127.0.0.8")})
	if n, err := closeStale(gone); n != 1 || err != nil {
		t.Fatalf("%d closed, %v", n, err)
	}
	if err := stale.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := stale.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the stale connection: %v", err)
	}
	if _, err := good.Write([]byte("x")); err != nil {
		t.Errorf("the good connection: %v", err)
	}
}
