package change

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// run is from the first to the last of numbers without a gap.
type run struct{ First, Last uint32 }

// proberArg makes the test's own binary a prober: it runs in a pod's network namespace.
const proberArg = "-prober"

const (
	probePort = 9100
	probeGap  = 4 * time.Millisecond // 1,500 a second in all: more of them, and hosts that encrypt in user space on two processors can't keep up
)

// tally is what a prober counted.
type tally struct {
	Sent     map[string]uint32 `json:"sent"`     // by destination
	Received map[string]uint32 `json:"received"` // by source, each number once
	Failed   map[string]uint32 `json:"failed"`   // by destination: the kernel refused the datagram
	Missing  map[string][]run  `json:"missing"`  // by source: the first runs of numbers that did not come
	At       []time.Time       `json:"at"`       // when each number was sent
	Errors   []string          `json:"errors,omitempty"`
}

// listens is what a prober says when it does.
const listens = "listens"

// prober says that it listens, sends a numbered datagram to each address every probeGap, from the first line of its input to the second, and
// reports at its end what it counted of those that came.
func prober(in io.Reader, out io.Writer, to []string) error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: probePort})
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	const buffer = 32 << 20 // a busy machine must not cost a datagram
	if err := raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, 33, buffer) // SO_RCVBUFFORCE
	}); err != nil {
		return err
	}
	t := tally{Sent: map[string]uint32{}, Received: map[string]uint32{}, Failed: map[string]uint32{}, Missing: map[string][]run{}}
	var mu sync.Mutex
	got := map[string][]uint32{}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n >= 4 {
				mu.Lock()
				a := from.Addr().Unmap().String()
				got[a] = append(got[a], binary.BigEndian.Uint32(b))
				mu.Unlock()
			}
		}
	}()
	lines := make(chan struct{})
	go func() {
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- struct{}{}
		}
		close(lines)
	}()
	fmt.Fprintln(out, listens)
	<-lines // all listen
	send(c, to, &t, lines)
	<-lines
	mu.Lock()
	defer mu.Unlock()
	for from, all := range got {
		t.count(from, all)
	}
	return json.NewEncoder(out).Encode(t)
}

// when says when the sender sent what did not come.
func (t *tally) when(missing []run) (out []string) {
	const clock = "15:04:05.000"
	for _, r := range missing {
		if int(r.Last) < len(t.At) {
			out = append(out, fmt.Sprintf("%d-%d (%s to %s)", r.First, r.Last, t.At[r.First].UTC().Format(clock), t.At[r.Last].UTC().Format(clock)))
		}
	}
	return out
}

func (t *tally) count(from string, all []uint32) {
	seen := map[uint32]bool{}
	last := uint32(0)
	for _, n := range all {
		seen[n] = true
		last = max(last, n)
	}
	t.Received[from] = uint32(len(seen))
	for n := uint32(0); n < last; n++ {
		if seen[n] {
			continue
		}
		runs := t.Missing[from]
		switch k := len(runs) - 1; {
		case k >= 0 && runs[k].Last+1 == n:
			runs[k].Last = n
		case k < 8:
			t.Missing[from] = append(runs, run{n, n})
		}
	}
}

func send(c *net.UDPConn, to []string, t *tally, stop <-chan struct{}) {
	tick := time.NewTicker(probeGap)
	defer tick.Stop()
	b := make([]byte, 64)
	for n := uint32(0); ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		binary.BigEndian.PutUint32(b, n)
		t.At = append(t.At, time.Now())
		for _, a := range to {
			_, err := c.WriteToUDPAddrPort(b, netip.AddrPortFrom(netip.MustParseAddr(a), probePort))
			t.Sent[a]++
			if err != nil {
				t.Failed[a]++
				if len(t.Errors) < 5 {
					t.Errors = append(t.Errors, fmt.Sprintf("number %d to %s: %v", n, a, err))
				}
			}
		}
	}
}

// probes are the probers of all pods.
type probes struct {
	t     *testing.T
	addrs []string
	all   []*pipes
}

// pipes lead to a prober.
type pipes struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// podNamespace is how nsenter enters the network of the host's pod, but not its files: the host does not see the test's binary.
func (c *cluster) podNamespace(host string) []string {
	pid, err := c.PID(c.T.Context(), host)
	if err != nil {
		c.T.Fatal(err)
	}
	path := c.Must(host, fmt.Sprintf(`grep -A6 '"Name": "on-%s"' /run/weft/attachments.json | grep -o '/[^"]*' | tail -1`, host))
	args := []string{fmt.Sprintf("--net=/proc/%d/root%s", pid, path)}
	if os.Geteuid() != 0 {
		args = append(args, fmt.Sprintf("--user=/proc/%d/ns/user", pid), "--preserve-credentials")
	}
	return args
}

// probe starts a prober in each pod; all send when all listen: a machine that reads the program from its disk first takes its time.
func (c *cluster) probe(addrs map[string]string) *probes {
	p := &probes{t: c.T}
	self, err := os.Executable()
	if err != nil {
		c.T.Fatal(err)
	}
	for _, h := range hosts {
		p.addrs = append(p.addrs, addrs[h])
	}
	for i, h := range hosts {
		var to []string
		for j, a := range p.addrs {
			if j != i {
				to = append(to, a)
			}
		}
		p.start(append(append(c.podNamespace(h), self, proberArg), to...))
	}
	for i, q := range p.all {
		if line, err := q.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != listens {
			c.T.Fatalf("prober %d says %q: %v", i, line, err)
		}
	}
	p.say("go")
	return p
}

// start runs a prober, which a test that fails early ends.
func (p *probes) start(args []string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "nsenter", args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.all = append(p.all, &pipes{cmd, in, bufio.NewReader(out)})
}

func (p *probes) say(line string) {
	for _, q := range p.all {
		if _, err := fmt.Fprintln(q.in, line); err != nil {
			p.t.Fatal(err)
		}
	}
}

// lost stops the probers and counts what was sent and what was lost, by direction.
func (p *probes) lost() (sent, lost uint32, detail string) {
	p.say("stop")
	time.Sleep(2 * time.Second) // for those under way, and what a busy host has yet to read
	tallies := make([]tally, len(p.all))
	for i, q := range p.all {
		_ = q.in.Close() // it ends by that
		if err := json.NewDecoder(q.out).Decode(&tallies[i]); err != nil {
			p.t.Fatalf("prober %d: %v", i, err)
		}
		if err := q.cmd.Wait(); err != nil {
			p.t.Fatalf("prober %d: %v", i, err)
		}
	}
	for i := range tallies {
		for j := range tallies {
			if i == j {
				continue
			}
			s, r := tallies[i].Sent[p.addrs[j]], tallies[j].Received[p.addrs[i]]
			sent += s
			if r < s {
				lost += s - r
				detail += fmt.Sprintf("%s to %s: %d of %d, first %v, refused %d %v\n", hosts[i], hosts[j], s-r, s,
					tallies[i].when(tallies[j].Missing[p.addrs[i]]), tallies[i].Failed[p.addrs[j]], tallies[i].Errors)
			}
		}
	}
	return sent, lost, detail
}
