package wg_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/kernel/tun/wg"
	"weft/internal/netstate"
	"weft/internal/overlay/wireguard"
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

// connect both hosts.
func connect(a, b *host) {
	a.apply(b.lease)
	b.apply(a.lease)
}

func TestModes(t *testing.T) {
	for _, mode := range []string{wireguard.ModeSeparate, wireguard.ModeAuto, wireguard.ModeIPv4, wireguard.ModeIPv6} {
		t.Run(mode, func(t *testing.T) {
			a, b := newHosts(t)
			psk := wg.Key{1, 2, 3}
			for _, h := range []*host{a, b} {
				h.options.Mode, h.psk = mode, psk
				h.lease.WGPort, h.lease.WGPortV6 = wireguard.Ports(h.options)
				h.start()
			}
			connect(a, b)
			transfer(t, a.pod, b.pod, b.podV4, 1_000_000)
			transfer(t, b.pod, a.pod, a.podV4, 1_000_000)
			transfer(t, a.pod, b.pod, b.v6, 1_000_000)
			transfer(t, b.pod, a.pod, a.v6, 1_000_000)
			transfer(t, b.ns, a.pod, a.podV4, 10_000) // from the host itself
			if s := a.engine.Stats(); len(s.Refused) > 0 {
				t.Errorf("refused: %+v", s)
			}
			if n := a.apply(b.lease); n != 0 {
				t.Errorf("a second plan took %d ops, want none", n)
			}
		})
	}
}

func TestFullMTU(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	ping := func(args ...string) (string, error) {
		out, err := exec.Command("ip", append([]string{"netns", "exec", "pod1", "ping", "-n", "-c1", "-w30", "-Mdo"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := exec.LookPath("ping"); err != nil {
		t.Skip("no ping:", out)
	}
	for _, to := range []struct {
		addr string
		size string
	}{{"10.1.2.5", "1392"}, {"fd10:0:0:2::5", "1372"}} { // 1420 with their headers
		if out, err := ping("-s", to.size, to.addr); err != nil {
			t.Errorf("full MTU: %v\n%s", err, out)
		}
	}
	if out, err := ping("-w2", "-s", "1393", "10.1.2.5"); err == nil {
		t.Errorf("more than the MTU arrived:\n%s", out)
	}
	out, err := exec.Command("ip", "-n", "host1", "-s", "-s", "route", "show", "cache").CombinedOutput()
	if err != nil || strings.Contains(string(out), "mtu") {
		t.Errorf("the path's MTU fell: %v %s", err, out)
	}
}

func TestRestart(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
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

func TestDeviceStolen(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	ip(t, "-n host1 link del flannel-wg")
	a.apply(b.lease)
	transfer(t, a.pod, b.pod, b.podV4, 100_000)
}

func TestPeerRemoved(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	b.apply() // b forgets a
	l := listen(t, b.pod, b.podV4)
	if c, err := dialFor(a.pod, l.Addr(), time.Second); err == nil {
		_ = c.Close()
		t.Error("connected to a host that does not know the peer")
	}
	b.apply(a.lease)
	transfer(t, b.pod, a.pod, a.podV4, 1000)
	a.want = netstate.New()
	must(t, a.ns.Do(func() error { return a.engine.Apply(a.want) }))
	a.converge(a.want)
	for _, dev := range []string{wireguard.Device, wireguard.DeviceV6} {
		if out, err := exec.Command("ip", "-n", "host1", "link", "show", "dev", dev).CombinedOutput(); err == nil {
			t.Errorf("device is left behind: %s", out)
		}
	}
}

// TestSpoofed has a peer send from an address outside its subnet, and a host that no peer knows.
func TestSpoofed(t *testing.T) {
	a, b := newHosts(t)
	connect(a, b)
	transfer(t, a.pod, b.pod, b.podV4, 1000)
	ip(t, "-n pod1 addr add 10.1.3.9/32 dev eth0\n-n host1 route add 10.1.3.9/32 dev pod")
	out, err := exec.Command("ip", "netns", "exec", "pod1", "ping", "-n", "-c1", "-W0.3", "-I", "10.1.3.9", "10.1.2.5").CombinedOutput()
	if err == nil {
		t.Errorf("a foreign source came through: %s", out)
	}
	spoofed := func() uint64 { return refused(b.engine.Stats(), "10.99.0.1", wg.ReasonSource) }
	for end := time.Now().Add(10 * time.Second); spoofed() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := spoofed(); got != 1 {
		t.Errorf("counted %d of the peer's spoofed packets, want 1: %+v", got, b.engine.Stats())
	}
	b.apply() // and now a is a stranger
	_, _ = exec.Command("ip", "netns", "exec", "pod1", "ping", "-n", "-c1", "-W0.3", "10.1.2.5").CombinedOutput()
	must(t, a.engine.Close())
	a.start() // a new handshake
	a.apply(b.lease)
	handshakes := func() uint64 { return refused(b.engine.Stats(), "10.99.0.1:51820", wg.ReasonHandshake) }
	for end := time.Now().Add(30 * time.Second); handshakes() == 0 && time.Now().Before(end); {
		_, _ = exec.Command("ip", "netns", "exec", "pod1", "ping", "-n", "-c1", "-W0.3", "10.1.2.5").CombinedOutput()
	}
	if handshakes() == 0 {
		t.Errorf("the stranger was not counted: %+v", b.engine.Stats())
	}
}

func refused(s wg.Stats, from, reason string) uint64 {
	for _, r := range s.Refused {
		if r.From == from && r.Reason == reason {
			return r.Packets
		}
	}
	return 0
}

// TestOneKeyTwice refuses the second host with a key and keeps the first.
func TestOneKeyTwice(t *testing.T) {
	a, b := newHosts(t)
	b.apply(a.lease)
	a.want = a.plan([]api.Lease{b.lease})
	for _, twin := range netstate.Of[netstate.Tunnel](a.want) { // a planner would refuse it
		if twin.Subnet == b.lease.Subnet {
			twin.Subnet, twin.Remote = netip.MustParsePrefix("10.1.9.0/24"), netip.AddrPortFrom(netip.MustParseAddr("10.99.0.77"), twin.Remote.Port())
			a.want.Add(twin)
		}
	}
	must(t, a.ns.Do(func() error { return a.engine.Prepare(a.want) }))
	a.converge(a.want)
	err := a.ns.Do(func() error { return a.engine.Apply(a.want) })
	if err == nil || !strings.Contains(err.Error(), "has the key of host") {
		t.Errorf("error %v: want it to name the two hosts", err)
	}
	transfer(t, a.pod, b.pod, b.podV4, 1000)
}
