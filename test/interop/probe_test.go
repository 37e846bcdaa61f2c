package interop

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeName is the name by which this program, started in a pod, is the traffic's other end:
//
//	interop-probe serve          answers on port 7000, TCP and UDP
//	interop-probe talk ADDR N    sends N bytes there and back, prints what the other side saw (talk)
//	interop-probe stream ADDR    sends until its input ends, prints what was lost (flow)
const probeName = "interop-probe"

const (
	probePort = "7000"
	every     = 5 * time.Millisecond // between two datagrams of a stream
	patience  = 10 * time.Second     // for one answer
)

// roomy gives a UDP socket room for what comes while its program does not get the processor.
func roomy(c any) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // without the right to it the socket stays as it is
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
}

// talk is what one exchange showed.
type talk struct {
	TCP, UDP string // our address as the other side saw it
	Bytes    int64  // there and back, each
}

// flow is what a stream of datagrams and a connection beside it saw.
type flow struct {
	Sent, Lost int
	Gap        time.Duration // longest time without an answer
	Holes      []hole        // where datagrams were lost
	Bytes      int64         // that the connection carried there and back
	Broken     string        // why the connection ended, if it did
}

// hole is datagrams lost in a row.
type hole struct {
	At time.Time // when the first was sent
	N  int
}

func probeMain(argv []string) (code int, ran bool) {
	if filepath.Base(argv[0]) != probeName {
		return 0, false
	}
	// What is measured is the network, not how busy the machine is. Without the right to it all works the same.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -15)
	var out any
	var err error
	switch {
	case len(argv) == 2 && argv[1] == "serve":
		err = probeServe()
	case len(argv) == 4 && argv[1] == "talk":
		out, err = probeTalk(argv[2], argv[3])
	case len(argv) == 3 && argv[1] == "stream":
		out, err = probeStream(argv[2])
	default:
		err = fmt.Errorf("arguments %q", argv)
	}
	if err == nil && out != nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// probeServe tells each peer its address as it is seen here, then sends back what it gets.
func probeServe() error {
	pc, err := net.ListenPacket("udp", ":"+probePort)
	if err != nil {
		return err
	}
	roomy(pc)
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				continue
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = pc.WriteTo(append(buf[:n:n], host...), from) // the peer notices what is lost
		}
	}()
	l, err := net.Listen("tcp", ":"+probePort)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintln(c, host)
			_, _ = io.Copy(c, c) // the peer notices
		}()
	}
}

func probeTalk(addr, count string) (talk, error) {
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return talk{}, err
	}
	out := talk{Bytes: n}
	if out.UDP, err = talkUDP(addr); err != nil {
		return out, fmt.Errorf("udp: %w", err)
	}
	if out.TCP, err = talkTCP(addr, n); err != nil {
		return out, fmt.Errorf("tcp: %w", err)
	}
	return out, nil
}

func talkUDP(addr string) (string, error) {
	c, err := net.Dial("udp", net.JoinHostPort(addr, probePort))
	if err != nil {
		return "", err
	}
	defer c.Close()
	const hello = "hello"
	buf := make([]byte, 2048)
	for range 4 {
		if _, err = c.Write([]byte(hello)); err != nil {
			continue // an ICMP error of the datagram before
		}
		_ = c.SetReadDeadline(time.Now().Add(patience / 4))
		var n int
		if n, err = c.Read(buf); err == nil {
			return strings.TrimPrefix(string(buf[:n]), hello), nil
		}
	}
	return "", err
}

func talkTCP(addr string, n int64) (string, error) {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, probePort), patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(4 * patience))
	r := bufio.NewReader(c)
	seen, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the greeting: %w", err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, io.LimitReader(&pattern{}, n))
		sent <- err
	}()
	want, buf := &pattern{}, make([]byte, 32<<10)
	for got := int64(0); got < n; {
		k, err := r.Read(buf)
		if err != nil {
			return "", fmt.Errorf("after %d of %d bytes: %w", got, n, err)
		}
		if !want.matches(buf[:k]) {
			return "", fmt.Errorf("other bytes came back, %d bytes in", got)
		}
		got += int64(k)
	}
	return strings.TrimSpace(seen), <-sent
}

// pattern is an endless reader of bytes that differ from place to place.
type pattern struct{ at uint32 }

func (p *pattern) next() byte {
	p.at++
	return byte(p.at * 2654435761 >> 24)
}

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = p.next()
	}
	return len(b), nil
}

func (p *pattern) matches(b []byte) bool {
	for _, x := range b {
		if x != p.next() {
			return false
		}
	}
	return true
}

// probeStream sends numbered datagrams and bytes over one connection until standard input ends.
func probeStream(addr string) (flow, error) {
	c, err := net.Dial("udp", net.JoinHostPort(addr, probePort))
	if err != nil {
		return flow{}, err
	}
	roomy(c)
	tcp, err := net.DialTimeout("tcp", net.JoinHostPort(addr, probePort), patience)
	if err != nil {
		return flow{}, err
	}
	fmt.Fprintln(os.Stdout, "begun")
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var f flow
	carried := make(chan struct{})
	go func() {
		defer close(carried)
		f.Bytes, f.Broken = carry(tcp, over)
	}()
	f.datagrams(c, over)
	<-carried
	return f, nil
}

// datagrams counts those that were not answered within patience.
func (f *flow) datagrams(c net.Conn, over <-chan struct{}) {
	type answers struct {
		seen map[uint64]bool
		gap  time.Duration
	}
	done := make(chan answers)
	go func() {
		a := answers{seen: map[uint64]bool{}}
		last, buf := time.Now(), make([]byte, 256)
		for {
			n, err := c.Read(buf)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				done <- a
				return
			case err != nil || n < 8: // an ICMP error
				continue
			}
			now := time.Now()
			a.gap, last = max(a.gap, now.Sub(last)), now
			a.seen[binary.BigEndian.Uint64(buf)] = true
		}
	}()
	var at []time.Time
	tick := time.NewTicker(every)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-over:
			running = false
		case <-tick.C:
			_, _ = c.Write(binary.BigEndian.AppendUint64(nil, uint64(len(at)))) // refused here is lost too
			at = append(at, time.Now())
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience / 4))
	a := <-done
	f.Sent, f.Gap = len(at), a.gap
	for i, t := range at {
		switch n := len(f.Holes); {
		case a.seen[uint64(i)]:
			continue
		case i > 0 && !a.seen[uint64(i-1)]:
			f.Holes[n-1].N++
		default:
			f.Holes = append(f.Holes, hole{t, 1})
		}
		f.Lost++
	}
}

// carry sends bytes all the while and reads them back; broken says what ended the connection before its time.
func carry(c net.Conn, over <-chan struct{}) (n int64, broken string) {
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return 0, err.Error()
	}
	chunk, back := make([]byte, 4096), make([]byte, 4096)
	want, sent := &pattern{}, &pattern{}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return n, ""
		case <-tick.C:
		}
		_, _ = sent.Read(chunk)
		_ = c.SetDeadline(time.Now().Add(6 * patience))
		if _, err := c.Write(chunk); err != nil {
			return n, err.Error()
		}
		if _, err := io.ReadFull(r, back); err != nil {
			return n, err.Error()
		}
		if !want.matches(back) {
			return n, "other bytes came back"
		}
		n += int64(len(back))
	}
}
