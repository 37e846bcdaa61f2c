package live

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/netns"
	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/internal/packet"
	"weft/test/labtest"
)

// underlayWire counts the IP packets on a host's wire that have a pod's address where everybody can read it: outside and inside VXLAN.
type underlayWire struct {
	mu           sync.Mutex
	plain, vxlan int
	example      string
}

// listen captures what passes eth0 of the host until the test ends.
func (c *cluster) listen(host string) *underlayWire {
	c.T.Helper()
	pid, err := c.PID(c.T.Context(), host)
	if err != nil {
		c.T.Fatal(err)
	}
	var fd int
	err = netns.Do(fmt.Sprintf("/proc/%d/ns/net", pid), func() error {
		const all = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) // what is lost would not be counted
		return nil
	})
	if err != nil {
		c.T.Fatalf("capture on %s: %v", host, err)
	}
	w := &underlayWire{}
	done, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.read(fd, stop)
	}()
	c.T.Cleanup(func() {
		close(stop)
		<-done
		_ = unix.Close(fd)
	})
	return w
}

func (w *underlayWire) read(fd int, stop chan struct{}) {
	b := make([]byte, 65536)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(fd, b, 0)
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok {
			continue
		}
		// Only what is on the underlay: between pods of the host everything is in clear.
		if ll.Hatype == unix.ARPHRD_ETHER && ll.Ifindex == eth0Index(fd) {
			w.see(b[:n])
		}
	}
}

// eth0Index is the index of eth0 in the socket's network namespace.
func eth0Index(fd int) int {
	r, err := unix.NewIfreq("eth0")
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r) != nil {
		return -1
	}
	return int(r.Uint32())
}

func (w *underlayWire) see(frame []byte) {
	f, err := packet.Decode(frame, packet.VXLANPort)
	if err != nil || f.IP == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case isPod(f.IP.Src.Addr()) || isPod(f.IP.Dst.Addr()):
		w.plain++
		w.example = f.IP.Flow.String()
	case f.Inner != nil && f.Inner.IP != nil:
		w.vxlan++
	}
}

// isPod: the network without the hosts' part.
func isPod(a netip.Addr) bool {
	return netip.MustParsePrefix("172.16.0.0/12").Contains(a) && !netip.MustParsePrefix("172.17.0.0/16").Contains(a)
}

func (w *underlayWire) counts() (plain, vxlan int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plain, w.vxlan
}

// reset begins to count anew and returns what was seen before, in VXLAN or plain.
func (w *underlayWire) reset() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.plain + w.vxlan
	w.plain, w.vxlan = 0, 0
	return n
}

// TestNothingLeavesInClear injures an encrypted network in every way while pods and the host send, and looks at the wire. Before that, with
// backend vxlan, and after it, without the seal, the same looks see what they look for.
func TestNothingLeavesInClear(t *testing.T) {
	c := up(t, topology.Default())
	server := c.pods()
	w := c.listen(node1)
	c.senders(server)
	labtest.Eventually(t, "pods' packets in VXLAN", 10*time.Second, func() error {
		if _, vxlan := w.counts(); vxlan < 10 {
			return fmt.Errorf("%d in VXLAN", vxlan)
		}
		return nil
	})

	c.apply(`{"Type": "wireguard"}`)
	for _, h := range []string{node1, node2} {
		labtest.Eventually(t, "wireguard on "+h, 10*time.Second, c.routes(h, "ip route", "172.16.0.0/12 dev flannel-wg"))
	}
	vxlan := w.reset() // before, pods' packets to nobody left by the default route
	t.Logf("with vxlan: %d packets of pods on the wire for everybody to read", vxlan)
	ping := fmt.Sprintf(netnsOf+"ping -c 1 -W 1 %s", "client", server)
	labtest.Eventually(t, "pods reach each other encrypted", 15*time.Second, c.Says(node1, ping, "1 received"))

	steal := "for i in 1 2 3 4 5 6 7 8 9 10; do ip route replace 172.16.78.0/24 via 172.17.42.32 dev eth0; sleep 0.05; done"
	for _, x := range []struct{ what, injure string }{
		{"routes stolen", steal},
		{"routes flushed", "ip route flush proto 119; sleep 0.2; ip route flush dev flannel-wg"},
		{"device down", "ip link set flannel-wg down; sleep 0.3"},
		{"device deleted", "ip link del flannel-wg; sleep 0.3"},
	} {
		if out, err := c.Sh(node1, x.injure); err != nil {
			t.Logf("%s: %v %s", x.what, err, out)
		}
		labtest.Eventually(t, "healed: "+x.what, 20*time.Second, c.Says(node1, ping, "1 received"))
		c.quiet(w, x.what)
	}

	c.kill(node1)
	c.Must(node1, "ip link del flannel-wg; ip route replace 172.16.0.0/12 via 172.17.42.32 dev eth0; sleep 1; ip route del 172.16.0.0/12")
	c.quiet(w, "no agent, no device, the network's route stolen")
	if err := c.Start(t.Context(), node1, lab.Agent); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "healed: a new agent", 30*time.Second, c.Says(node1, ping, "1 received"))
	c.quiet(w, "a new agent")
	c.kill(node2)
	c.Must(node1, steal)
	c.quiet(w, "the peer has no agent")
	if _, vxlan := w.counts(); vxlan != 0 {
		t.Errorf("%d packets left in VXLAN", vxlan)
	}
	if out := c.Must(node1, "weft status"); !strings.Contains(out, "sealed") || !strings.Contains(out, "wireguard cleartext") {
		t.Errorf("status tells of no seal:\n%s", out)
	} else {
		t.Logf("status of %s:\n%s", node1, out)
	}

	// Without the seal the same injury shows on the wire: the look is a look.
	c.kill(node1)
	c.Must(node1, "nft delete table inet weft; ip route replace 172.16.78.0/24 via 172.17.42.32 dev eth0; sleep 1")
	if plain, _ := w.counts(); plain == 0 {
		t.Error("without the seal nothing was seen either: the test can't fail")
	} else {
		t.Logf("without the seal: %d packets in clear within a second, the last %s", plain, w.example)
	}
}

// quiet checks that nothing was seen in clear so far.
func (c *cluster) quiet(w *underlayWire, what string) {
	c.T.Helper()
	plain, _ := w.counts()
	c.T.Logf("%-50s %d packets in clear", what, plain)
	if plain > 0 {
		c.T.Errorf("%s: %d packets in clear, the last %s", what, plain, w.example)
	}
}

// kill ends the agent without a chance to tidy up.
func (c *cluster) kill(host string) {
	c.T.Helper()
	if err := c.Signal(c.T.Context(), host, lab.Agent, syscall.SIGKILL); err != nil {
		c.T.Fatal(err)
	}
}

// senders has a pod and the host send to a pod elsewhere and to an address that nobody has, all the while.
func (c *cluster) senders(server string) {
	pod := fmt.Sprintf(netnsOf, "client")
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, command := range []string{
		pod + "ping -q -i 0.02 " + server, pod + "ping -q -i 0.02 172.16.78.250", pod + "ping -q -i 0.02 172.20.9.9",
		"ping -q -i 0.02 " + server, "ping -q -i 0.02 172.16.78.250",
	} {
		all.Go(func() {
			for ctx.Err() == nil { // ping ends when there is no route
				_, _ = c.Exec(ctx, node1, "sh", "-c", "timeout 120 "+command+"; sleep 0.05")
			}
		})
	}
	c.T.Cleanup(func() { stop(); all.Wait() })
}
