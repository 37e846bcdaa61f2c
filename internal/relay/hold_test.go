package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/netstate"
)

// envHold makes TestHoldProcess a server of BenchmarkHold: "backend", or "relay ENDPOINT".
const envHold = "WEFT_TEST_HOLD"

// TestHoldProcess is no test: BenchmarkHold runs it as processes of its own. It prints its port, then its sessions for every line it reads.
func TestHoldProcess(t *testing.T) {
	role, to, _ := strings.Cut(os.Getenv(envHold), " ")
	var port uint16
	active := func() int { return 0 }
	switch role {
	case "":
		t.Skip("a process of BenchmarkHold")
	case "backend":
		port = backend(t, func(c *net.TCPConn) {
			b := make([]byte, 1)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
				_, _ = c.Write(b)
			}
		}).Port()
	case "relay":
		r, addr := start(t, Options{}, tcpService(netip.MustParseAddrPort(to)))
		port, active = addr.Port(), func() int { return r.Stats().Active }
	}
	fmt.Printf("port %d\n", port)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Printf("active %d\n", active())
	}
}

// holder is a process of BenchmarkHold.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func hold(b *testing.B, role string) (*holder, netip.AddrPort) {
	b.Helper()
	h := &holder{cmd: exec.Command("/proc/self/exe", "-test.run", "^TestHoldProcess$", "-test.timeout", "5m")}
	h.cmd.Env = append(os.Environ(), envHold+"="+role)
	h.cmd.Stderr = os.Stderr
	var err1, err2 error
	h.in, err1 = h.cmd.StdinPipe()
	out, err2 := h.cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = h.cmd.Process.Kill(); _ = h.cmd.Wait() })
	h.out = bufio.NewScanner(out)
	return h, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(h.number(b, "port")))
}

// number reads on until the line with that word.
func (h *holder) number(b *testing.B, word string) int {
	b.Helper()
	for h.out.Scan() {
		if text, ok := strings.CutPrefix(h.out.Text(), word+" "); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("the process says no %s", word)
	return 0
}

// resident is the process's resident memory in MiB.
func (h *holder) resident(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1024
}

// BenchmarkHold holds ten thousand connections through a relay in a process of its own and reports its resident memory. Where the limit of
// file descriptors is too low it holds what fits, and reports the memory for ten thousand of these (ulimit -n 32768).
func BenchmarkHold(b *testing.B) {
	n := 10000
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		b.Fatal(err)
	}
	n = min(n, (int(r.Max)-2*spareFiles)/filesTCP)
	for b.Loop() {
		_, to := hold(b, "backend")
		relay, addr := hold(b, "relay "+to.String())
		empty := relay.resident(b)
		conns := make([]net.Conn, n)
		var next atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
					c, err := net.Dial("tcp", addr.String())
					if err != nil {
						b.Error(err)
						return
					}
					conns[i] = c
					if _, err := c.Write([]byte{1}); err != nil {
						b.Error(err)
					}
					if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
		_, _ = io.WriteString(relay.in, "\n")
		b.ReportMetric(float64(relay.number(b, "active")), "held")
		rss := relay.resident(b)
		b.ReportMetric(empty+(rss-empty)*10000/float64(n), "rss-MiB")
		for _, c := range conns {
			if c != nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		}
	}
}

// TestSlowReaders sends to servers that do not read, until the relay takes no more: it may hold a little for each of them and no more. Then
// they read, and everything arrives.
func TestSlowReaders(t *testing.T) {
	const clients, most = 8, 512 << 20 // the kernel buffers some MB of each
	read := make(chan struct{})
	var got atomic.Int64
	server := backend(t, func(c *net.TCPConn) {
		<-read
		n, _ := io.Copy(io.Discard, c)
		got.Add(n)
	})
	release := sync.OnceFunc(func() { close(read) })
	defer release()
	r, addr := start(t, Options{}, tcpService(server))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var sent atomic.Int64
	var all sync.WaitGroup
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = connect(t, addr)
		all.Go(func() {
			b := make([]byte, 64<<10)
			for sent.Load() < most {
				_ = conns[i].SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
				n, err := conns[i].Write(b)
				sent.Add(int64(n))
				if err != nil {
					return // nobody takes more: back-pressure has come through
				}
			}
			t.Errorf("the relay takes without end: %d bytes", sent.Load())
		})
	}
	all.Wait()
	eventually(t, "all have a session", func() bool { return len(r.Connections()) == clients })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse); grown > 4<<20 {
		t.Errorf("%d MB sent to servers that do not read: the heap grew by %d KB", sent.Load()>>20, grown>>10)
	}
	release()
	for _, c := range conns {
		_ = c.CloseWrite()
	}
	eventually(t, "all that was sent arrives", func() bool { return got.Load() == sent.Load() })
}

// TestPipesCount lends no pipe when the descriptors are needed for sessions.
func TestPipesCount(t *testing.T) {
	r := New(Options{MaxFiles: 20})
	defer r.Close()
	r.pipes.least = 1 // other programs of the user may have used up what there is of large ones
	p, ok := r.pipes.get()
	if used, _ := r.limit.usage(); !ok || used != filesPipe {
		t.Fatalf("pipe %v, %d descriptors used", ok, used)
	}
	if !r.limit.try(16) {
		t.Fatal("no descriptors for sessions")
	}
	if _, ok := r.pipes.get(); ok {
		t.Error("a pipe that leaves no descriptors for sessions")
	}
	r.pipes.put(p, io.ErrUnexpectedEOF) // not empty: gone
	if used, _ := r.limit.usage(); used != 16 {
		t.Errorf("%d descriptors used, want those of the sessions", used)
	}
}

// TestUDPNoWay passes a datagram to the next endpoint when there is no way to the first.
func TestUDPNoWay(t *testing.T) {
	there, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	away := netip.MustParseAddrPort("192.0.2.1:53")
	o := Options{}
	o.Dial = func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		if to == away {
			return nil, syscall.ENETUNREACH
		}
		return dial(ctx, network, to)
	}
	_, addr := start(t, o, netstate.Listener{
		Service: "default/a:", Protocol: "UDP", Addr: anyPort, Endpoints: []netip.AddrPort{away, addrPort(there.LocalAddr())},
	})
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	_ = there.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, _, err := there.ReadFrom(make([]byte, 9)); err != nil {
		t.Error(err)
	}
}
