package datagram_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/tun/datagram"
	"weft/internal/netstate"
)

// transfer sends bytes from one namespace to an address of the other and checks that they arrive.
func transfer(t *testing.T, from, to *netns.NS, a netip.Addr, n int) {
	t.Helper()
	data := make([]byte, n)
	_, _ = rand.Read(data)
	l := listen(t, to, a)
	sum := make(chan [32]byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		_, _ = io.Copy(h, c)
		sum <- [32]byte(h.Sum(nil))
	}()
	c, err := dial(from, l.Addr())
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.Copy(c, bytes.NewReader(data))
	must(t, err)
	must(t, c.Close())
	select {
	case got := <-sum:
		if got != sha256.Sum256(data) {
			t.Errorf("%d bytes to %s arrived changed", n, a)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%d bytes to %s did not arrive", n, a)
	}
}

func TestBothDirections(t *testing.T) {
	a, b := newHosts(t)
	a.apply(b.lease)
	b.apply(a.lease)
	for _, n := range []int{1, 1432, 1433, 100_000, 10_000_000} {
		transfer(t, a.pod, b.pod, b.podV4, n)
		transfer(t, b.pod, a.pod, a.podV4, n)
		transfer(t, a.pod, b.pod, b.v6, n)
	}
	transfer(t, b.ns, a.pod, a.podV4, 100_000) // from the host itself
	s := a.engine.Stats()
	if s.SentPackets < 10_000_000/1420 || s.SentTrains*4 > s.SentPackets {
		t.Errorf("%d packets in %d trains: want trains of many", s.SentPackets, s.SentTrains)
	}
	if len(s.Refused)+int(s.Malformed+s.Lost+s.NoPeer+s.Expired) > 0 {
		t.Errorf("not everything was relayed: %+v", s)
	}
}

// TestFullMTU sends datagrams of exactly the pods' MTU with DF set, and one byte more.
func TestFullMTU(t *testing.T) {
	a, b := newHosts(t)
	a.apply(b.lease)
	b.apply(a.lease)
	ping := func(args ...string) (string, error) {
		out, err := exec.Command("ip", append([]string{"netns", "exec", "pod1", "ping", "-n", "-c1", "-w30", "-Mdo"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := exec.LookPath("ping"); err != nil {
		t.Skip("no ping:", out)
	}
	if out, err := ping("-s", "1444", "10.1.2.5"); err != nil { // 1472 with its headers
		t.Errorf("full MTU: %v\n%s", err, out)
	}
	if out, err := ping("-w2", "-s", "1445", "10.1.2.5"); err == nil {
		t.Errorf("more than the MTU arrived:\n%s", out)
	}
	if out, err := ping("-s", "1424", "fd10:0:0:2::5"); err != nil {
		t.Errorf("full MTU, IPv6: %v\n%s", err, out)
	}
	if out, _ := ping("10.1.77.5"); !strings.Contains(out, "Net Unreachable") {
		t.Errorf("a subnet nobody holds: want net unreachable, have\n%s", out)
	}
	if out, _ := ping("fd10:0:0:77::5"); !strings.Contains(out, "No route") {
		t.Errorf("an IPv6 subnet nobody holds: want no route, have\n%s", out)
	}
	// Hops: the sending host, the tunnel, the receiving host.
	if out, _ := ping("-t", "2", "10.1.2.5"); !strings.Contains(out, "Time to live exceeded") {
		t.Errorf("TTL 2: want time exceeded in the tunnel, have\n%s", out)
	}
	if out, err := ping("-t", "4", "10.1.2.5"); err != nil {
		t.Errorf("TTL 4: %v\n%s", err, out)
	}
	s := a.engine.Stats()
	if s.NoPeer < 2 || s.Expired != 1 {
		t.Errorf("counters %+v: want 2 without peer, 1 expired", s)
	}
}

func TestRestart(t *testing.T) {
	a, b := newHosts(t)
	a.apply(b.lease)
	b.apply(a.lease)
	l := listen(t, b.pod, b.podV4)
	c, err := dial(a.pod, l.Addr())
	must(t, err)
	defer c.Close()
	s, err := l.Accept()
	must(t, err)
	defer s.Close()

	must(t, a.engine.Close())
	a.start()
	if n := a.apply(b.lease); n != 0 {
		t.Errorf("restart took %d ops, want none", n)
	}
	_, err = c.Write([]byte("still here"))
	must(t, err)
	must(t, s.SetReadDeadline(time.Now().Add(time.Minute)))
	if _, err := io.ReadFull(s, make([]byte, 10)); err != nil {
		t.Errorf("connection did not live through the restart: %v", err)
	}
}

// TestDeviceStolen deletes the device under the engine.
func TestDeviceStolen(t *testing.T) {
	a, b := newHosts(t)
	a.apply(b.lease)
	b.apply(a.lease)
	ip(t, "-n host1 link del flannel0")
	a.apply(b.lease)
	transfer(t, a.pod, b.pod, b.podV4, 100_000)
}

func TestPeerRemoved(t *testing.T) {
	a, b := newHosts(t)
	a.apply(b.lease)
	b.apply(a.lease)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	b.apply() // b forgets a
	l := listen(t, b.pod, b.podV4)
	if c, err := dialFor(a.pod, l.Addr(), time.Second); err == nil {
		_ = c.Close()
		t.Error("connected to a host that does not know the peer")
	}
	if got := refused(b.engine.Stats(), a.addr, datagram.ReasonNoPeer); got == 0 {
		t.Errorf("nothing counted as refused: %+v", b.engine.Stats())
	}
	b.apply(a.lease)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	a.want = netstate.New()
	must(t, a.ns.Do(func() error { return a.engine.Apply(a.want) }))
	a.converge(a.want)
	if out, err := exec.Command("ip", "-n", "host1", "link", "show", "dev", "flannel0").CombinedOutput(); err == nil {
		t.Errorf("device is left behind: %s", out)
	}
}

func refused(s datagram.Stats, from netip.Addr, reason string) uint64 {
	for _, r := range s.Refused {
		if r.From == from && r.Reason == reason {
			return r.Packets
		}
	}
	return 0
}

// TestSpoofed sends packets as a peer with inner sources that are not its own, as somebody who is no peer, and no packets at all.
func TestSpoofed(t *testing.T) {
	a, b := newHosts(t)
	b.apply(a.lease)
	ip(t, "-n host1 addr add 10.99.0.9/24 dev eth0")
	var sink net.PacketConn
	must(t, b.pod.Do(func() (err error) {
		sink, err = net.ListenPacket("udp", "10.1.2.5:99")
		return err
	}))
	defer sink.Close()
	send := func(from string, payload []byte) {
		t.Helper()
		must(t, a.ns.Do(func() error {
			c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)),
				net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.99.0.2:8285")))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(payload)
			return err
		}))
	}
	send("10.99.0.1", datagram.UDPPacket("10.1.2.7", "10.1.2.5", 99, "its own neighbour"))
	send("10.99.0.1", datagram.UDPPacket("192.0.2.1", "10.1.2.5", 99, "the world"))
	send("10.99.0.9", datagram.UDPPacket("10.1.1.5", "10.1.2.5", 99, "a stranger"))
	send("10.99.0.1", []byte("no packet"))
	send("10.99.0.1", datagram.UDPPacket("10.1.1.5", "10.1.2.5", 99, "right"))
	buf := make([]byte, 100)
	must(t, sink.SetReadDeadline(time.Now().Add(time.Minute)))
	n, _, err := sink.ReadFrom(buf)
	must(t, err)
	if got := string(buf[:n]); got != "right" {
		t.Errorf("%q came through first", got)
	}
	var s datagram.Stats
	counted := func() bool {
		s = b.engine.Stats()
		return refused(s, a.addr, datagram.ReasonSource) == 2 && refused(s, netip.MustParseAddr("10.99.0.9"), datagram.ReasonNoPeer) == 1 && s.Malformed == 1
	}
	for end := time.Now().Add(10 * time.Second); !counted() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !counted() {
		t.Errorf("counters %+v: want two of the peer's, one stranger, one malformed", s)
	}
}
