package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/test/labtest"
)

// interval is how often each pod sends a packet to each other one.
const interval = 2 * time.Millisecond

// maxPackets bounds what is remembered of one pair: over half an hour.
const maxPackets = 1 << 20

// flow is the packets from one pod to another.
type flow struct {
	from, to string
	sent     int
	at       []time.Time
	got      []bool
}

// traffic is packets between all pairs of pods both ways, with numbers, and one TCP connection that lasts.
type traffic struct {
	mu     sync.Mutex
	flows  []*flow
	resets int
	why    []string // it broke
	echoes int
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// end is a pod as the traffic knows it.
type end struct {
	name  string
	netns string
	ip    netip.Addr
}

// udpPort and tcpPort are those of the traffic in the pods.
const udpPort, tcpPort = 7000, 7001

// talk starts the traffic. All sockets are this process's, opened in the pods' namespaces, so all times are of one clock.
func talk(t *testing.T, ends []end) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	tr := &traffic{stop: stop}
	t.Cleanup(tr.end)
	for i, e := range ends {
		var conn *net.UDPConn
		err := netns.Do(e.netns, func() (err error) {
			conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: e.ip.AsSlice(), Port: udpPort})
			return err
		})
		if err != nil {
			t.Fatalf("open %s: %v", e.name, err)
		}
		_ = conn.SetReadBuffer(4 << 20) // a busy machine is no loss
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		first := len(tr.flows)
		for j, peer := range ends {
			if j != i {
				tr.flows = append(tr.flows, &flow{from: e.name, to: peer.name})
			}
		}
		tr.done.Go(func() { tr.receive(conn) })
		tr.done.Go(func() { tr.send(ctx, conn, ends, i, first) })
	}
	var l net.Listener
	if err := netns.Do(ends[1].netns, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(ends[1].ip, tcpPort).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	tr.done.Go(func() { echo(ctx, l) })
	tr.done.Go(func() { tr.stream(ctx, ends[0], ends[1]) })
	return tr
}

func (tr *traffic) end() {
	tr.stop()
	tr.done.Wait()
}

func (tr *traffic) send(ctx context.Context, conn *net.UDPConn, ends []end, self, first int) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	b := make([]byte, 64)
	for ctx.Err() == nil {
		<-tick.C
		n := first
		for j, peer := range ends {
			if j == self {
				continue
			}
			tr.mu.Lock()
			f := tr.flows[n]
			seq := f.sent
			if seq < maxPackets {
				f.sent++
				f.at = append(f.at, time.Now())
				f.got = append(f.got, false)
			}
			tr.mu.Unlock()
			binary.BigEndian.PutUint32(b, uint32(n))
			binary.BigEndian.PutUint32(b[4:], uint32(seq))
			_, _ = conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(peer.ip, udpPort)) // no route: lost
			n++
		}
	}
}

func (tr *traffic) receive(conn *net.UDPConn) {
	b := make([]byte, 128)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 {
			continue // an ICMP error of one packet
		}
		i, seq := int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint32(b[4:]))
		tr.mu.Lock()
		if i < len(tr.flows) && seq < len(tr.flows[i].got) {
			tr.flows[i].got[seq] = true
		}
		tr.mu.Unlock()
	}
}

// lost counts the packets sent between the times that did not arrive: of all pairs, and of the pair that lost most.
func (tr *traffic) lost(from, to time.Time) (all, most int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, f := range tr.flows {
		n := 0
		for i := len(f.at) - 1; i >= 0 && f.at[i].After(from); i-- {
			if !f.got[i] && f.at[i].Before(to) {
				n++
			}
		}
		all += n
		most = max(most, n)
	}
	return all, most
}

// settled waits until all pairs have carried everything sent in the last window.
func (tr *traffic) settled(limit time.Duration) error {
	const window, flight = 100 * time.Millisecond, 40 * time.Millisecond
	limit *= labtest.Slack
	begun := time.Now()
	for {
		now := time.Now()
		all, _ := tr.lost(now.Add(-window-flight), now.Add(-flight))
		if all == 0 && now.Sub(begun) > window+flight {
			return nil
		}
		if now.Sub(begun) > limit {
			return fmt.Errorf("%d of the last packets are lost, %s after", all, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// echo sends back what it gets.
func echo(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		context.AfterFunc(ctx, func() { _ = c.Close() })
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

// stream keeps one connection busy; when it breaks, that is counted and another one made.
func (tr *traffic) stream(ctx context.Context, from, to end) {
	b, answer := []byte("a line of a transfer that nothing may break"), make([]byte, 43)
	for ctx.Err() == nil {
		var c net.Conn
		err := netns.Do(from.netns, func() (err error) {
			d := net.Dialer{Timeout: 10 * time.Second}
			c, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(to.ip, tcpPort).String())
			return err
		})
		for err == nil {
			if _, err = c.Write(b); err == nil {
				_, err = io.ReadFull(c, answer)
			}
			if err == nil {
				tr.count(func() { tr.echoes++ })
				time.Sleep(5 * time.Millisecond)
			}
			if ctx.Err() != nil {
				break
			}
		}
		if c != nil {
			_ = c.Close()
		}
		if ctx.Err() == nil {
			tr.count(func() { tr.resets++; tr.why = append(tr.why, time.Now().Format(time.StampMilli)+" "+err.Error()) })
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func (tr *traffic) count(f func()) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	f()
}

// broken is how often the connection broke so far, and how many lines it carried.
func (tr *traffic) broken() (resets, echoes int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.resets, tr.echoes
}
