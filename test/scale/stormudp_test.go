package scale

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenAny opens a UDP socket for all addresses that tells which of them a datagram came to.
func listenAny(port int) (*net.UDPConn, error) {
	var c net.ListenConfig
	c.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) }); e != nil {
			return e
		}
		return err
	}
	l, err := c.ListenPacket(context.Background(), "udp4", (&net.UDPAddr{Port: port}).String())
	if err != nil {
		return nil, err
	}
	u := l.(*net.UDPConn)
	return u, u.SetReadBuffer(4 << 20)
}

// echoWho answers each datagram with the address it came to and itself, from that address, until the socket is closed.
func echoWho(u *net.UDPConn) {
	b, control := make([]byte, 512), make([]byte, 128)
	for {
		n, nc, _, from, err := u.ReadMsgUDPAddrPort(b[4:], control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		messages, e := unix.ParseSocketControlMessage(control[:nc])
		if err != nil || e != nil || len(messages) != 1 || len(messages[0].Data) != unix.SizeofInet4Pktinfo {
			continue
		}
		var to [4]byte
		copy(to[:], messages[0].Data[8:]) // ipi_addr
		copy(b, to[:])
		_, _, _ = u.WriteMsgUDPAddrPort(b[:4+n], unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to}), from)
	}
}

// askUDP sends a datagram from a new port and returns who answers. One that is lost is sent once more, as resolvers do.
func askUDP(to netip.AddrPort) (who netip.Addr, err error) {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return who, err
	}
	defer c.Close()
	var b [16]byte
	for range 2 {
		if _, err = c.Write([]byte("who?")); err != nil {
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = c.Read(b[:]); err == nil {
			return netip.AddrFrom4([4]byte(b[:4])), nil
		}
	}
	return who, err
}

const (
	// flowEvery is how often each flow sends: often enough that its connection tracking entry would never expire.
	flowEvery = 50 * time.Millisecond
	// flowSilence is how long a flow may be without an answer.
	flowSilence = 10 * goneLimit
)

// udpFlow is a client that keeps its port, as a resolver or a game does.
type udpFlow struct {
	service int
	conn    *net.UDPConn

	mu       sync.Mutex
	sent     map[uint64]time.Time // and not answered yet
	answered time.Time
	silent   time.Duration // the longest without an answer
	lost     int
}

// udpFlows are all of them.
type udpFlows struct {
	answers
	all  []*udpFlow
	wait sync.WaitGroup
}

// flows starts n flows, spread over the services of UDP.
func (s *storm) flows(tb testing.TB, n int, end time.Time) *udpFlows {
	tb.Helper()
	out := &udpFlows{}
	for k := range n {
		f := &udpFlow{service: k*10%stormServices + 9, sent: map[uint64]time.Time{}, answered: time.Now()}
		var err error
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(vip(f.service), servicePort))
		if f.conn, err = net.DialUDP("udp4", nil, to); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = f.conn.Close() })
		out.all = append(out.all, f)
		out.wait.Go(func() { f.read(s, &out.answers, end) })
	}
	out.wait.Go(func() { out.send(end) })
	return out
}

// send has each flow send, one after the other, evenly spread.
func (u *udpFlows) send(end time.Time) {
	tick := time.NewTicker(flowEvery / 10)
	defer tick.Stop()
	for turn := uint64(0); time.Now().Before(end); turn++ {
		<-tick.C
		for k := int(turn % 10); k < len(u.all); k += 10 {
			f, b := u.all[k], binary.BigEndian.AppendUint64(nil, turn)
			f.mu.Lock()
			f.sent[turn] = time.Now()
			f.mu.Unlock()
			u.asked.Add(1)
			if _, err := f.conn.Write(b); err != nil && !errors.Is(err, unix.ECONNREFUSED) { // that is the answer to the one before
				u.fail(err)
			}
		}
	}
}

// read takes in the answers until nothing more can come.
func (f *udpFlow) read(s *storm, a *answers, end time.Time) {
	var b [64]byte
	_ = f.conn.SetReadDeadline(end.Add(flowSilence))
	for {
		n, err := f.conn.Read(b[:])
		if errors.Is(err, unix.ECONNREFUSED) {
			continue
		}
		if err != nil {
			break
		}
		if n != 12 {
			a.fail(errors.New("an answer to nothing that was asked"))
			continue
		}
		now := time.Now()
		f.mu.Lock()
		at, ok := f.sent[binary.BigEndian.Uint64(b[4:])]
		delete(f.sent, binary.BigEndian.Uint64(b[4:]))
		f.silent, f.answered = max(f.silent, now.Sub(f.answered)), now
		f.mu.Unlock()
		if ok {
			a.by(s.goneFor(netip.AddrFrom4([4]byte(b[:4])), at))
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent = max(f.silent, end.Sub(f.answered))
	f.lost = len(f.sent)
}

// report prints and checks what the flows saw, after the end.
func (u *udpFlows) report(t *testing.T, held time.Duration) {
	t.Helper()
	u.wait.Wait()
	u.answers.report(t, "datagrams of flows that keep their port", held)
	lost, silent := 0, time.Duration(0)
	for _, f := range u.all {
		lost += f.lost
		if f.silent > silent {
			silent = f.silent
		}
	}
	share := float64(lost) / float64(max(u.asked.Load(), 1))
	t.Logf("%d flows: %d datagrams without an answer (%.3f %%), a flow without an answer for %s at most", len(u.all), lost, 100*share,
		silent.Round(time.Millisecond))
	if u.failed.Load() > 0 || share > 0.01 || silent > flowSilence+held {
		t.Errorf("of %d datagrams of flows %d failed and %d were lost; one flow was silent for %s", u.asked.Load(), u.failed.Load(), lost, silent)
	}
}
