package modes

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test's own binary is server and client: it runs in the network namespaces of pods and hosts.
const (
	echoArg   = "-echo"
	clientArg = "-client"
)

const (
	echoPort = 7000
	// patience is how long anything may take: a starved machine is slow, and what is lost stays lost.
	patience = 15 * time.Second
	heldGap  = 100 * time.Millisecond
	newGap   = 20 * time.Millisecond
)

// serveEcho answers TCP and UDP on the port until its input ends.
func serveEcho(in io.Reader, _ io.Writer, _ []string) error {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		return err
	}
	u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: echoPort})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = u.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	_, err = io.Copy(io.Discard, in)
	return err
}

// tally is what a client counted.
type tally struct {
	Held     int      `json:"held"`     // long-lived connections and UDP flows
	Rounds   int      `json:"rounds"`   // what they sent and got back
	Fresh    int      `json:"fresh"`    // new connections and flows
	Broken   int      `json:"broken"`   // of those held
	Failures int      `json:"failures"` // of the new ones
	Slowest  string   `json:"slowest"`
	Errors   []string `json:"errors,omitempty"`

	mu      sync.Mutex
	slowest time.Duration
}

func (t *tally) count(begun time.Time, err error, held bool, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if held {
		t.Rounds++
	} else {
		t.Fresh++
	}
	t.slowest = max(t.slowest, time.Since(begun))
	if err == nil {
		return
	}
	if held {
		t.Broken++
	} else {
		t.Failures++
	}
	if len(t.Errors) < 10 {
		t.Errors = append(t.Errors, fmt.Sprintf("%s %s: %v", begun.UTC().Format("15:04:05.000"), what, err))
	}
}

// exchange sends a number and wants it back; datagrams with older ones are passed over.
func exchange(c net.Conn, n uint64) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(nil, n)
	if _, err := c.Write(b); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(b); got == n {
			return nil
		} else if got > n {
			return fmt.Errorf("got %d, sent %d", got, n)
		}
	}
}

// runClient holds args[0] TCP connections and half as many UDP flows to each of the addresses args[1:], and makes new ones all the while, until its
// input ends.
func runClient(in io.Reader, out io.Writer, args []string) error {
	var held int
	if _, err := fmt.Sscan(args[0], &held); err != nil {
		return err
	}
	t := &tally{}
	stop := make(chan struct{})
	var all, ready sync.WaitGroup
	for _, to := range args[1:] {
		for i := range held + held/2 {
			network := "tcp"
			if i >= held {
				network = "udp"
			}
			ready.Add(1)
			all.Go(func() { t.hold(network, to, stop, ready.Done) })
		}
	}
	ready.Wait()
	for _, to := range args[1:] {
		for _, network := range []string{"tcp", "udp"} {
			all.Go(func() { t.renew(network, to, stop) })
		}
	}
	fmt.Fprintln(out, "ready")
	_, err := io.Copy(io.Discard, in)
	close(stop)
	all.Wait()
	t.Slowest = t.slowest.String()
	return errors.Join(err, json.NewEncoder(out).Encode(t))
}

func (t *tally) hold(network, to string, stop <-chan struct{}, ready func()) {
	begun := time.Now()
	c, err := net.DialTimeout(network, to, patience)
	if err == nil {
		defer c.Close()
		err = exchange(c, 0)
	}
	t.mu.Lock()
	t.Held++
	t.mu.Unlock()
	ready()
	t.count(begun, err, true, "held "+network+" "+to)
	tick := time.NewTicker(heldGap)
	defer tick.Stop()
	for n := uint64(1); err == nil; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		begun = time.Now()
		err = exchange(c, n)
		t.count(begun, err, true, fmt.Sprintf("held %s %s from %s, number %d", network, to, c.LocalAddr(), n))
	}
}

func (t *tally) renew(network, to string, stop <-chan struct{}) {
	tick := time.NewTicker(newGap)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		begun := time.Now()
		c, err := net.DialTimeout(network, to, patience)
		what := "new " + network + " " + to
		if err == nil {
			what += " from " + c.LocalAddr().String()
			err = exchange(c, 1)
			_ = c.Close()
		}
		t.count(begun, err, false, what)
	}
}

// program is the test's binary in a network namespace.
type program struct {
	t    *testing.T
	name string
	in   *io.PipeWriter
	out  *bufio.Reader
}

// in starts the test's binary in the network namespace at a path.
func (c *cluster) in(name, netns string, args ...string) *program {
	c.T.Helper()
	self, err := os.Executable()
	if err != nil {
		c.T.Fatal(err)
	}
	r, w := io.Pipe()
	enter := []string{"--net=" + netns}
	if os.Geteuid() != 0 {
		pid, err := c.PID(c.T.Context(), master)
		if err != nil {
			c.T.Fatal(err)
		}
		enter = append(enter, fmt.Sprintf("--user=/proc/%d/ns/user", pid), "--preserve-credentials")
	}
	cmd := exec.Command("nsenter", slices.Concat(enter, []string{self}, args)...)
	out, sink, err := os.Pipe() // not StdoutPipe: Wait closes that, read or not
	if err != nil {
		c.T.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, sink, os.Stderr
	p := &program{c.T, name, w, bufio.NewReader(out)}
	err = cmd.Start()
	_ = sink.Close() // the program has its own
	if err != nil {
		c.T.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // what it counted says how it went
	c.T.Cleanup(func() {
		_ = w.Close()
		_ = cmd.Process.Kill() // ended already unless the test failed
		<-ended
		_ = out.Close()
	})
	return p
}

// hostNetns is the path of a host's network namespace.
func (c *cluster) hostNetns(host string) string {
	pid, err := c.PID(c.T.Context(), host)
	if err != nil {
		c.T.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", pid)
}

// podNetns is that of a pod on the host.
func (c *cluster) podNetns(host, pod string) string {
	pid, err := c.PID(c.T.Context(), host)
	if err != nil {
		c.T.Fatal(err)
	}
	path := c.Must(host, fmt.Sprintf(`grep -A6 '"Name": "%s"' /run/weft/attachments.json | grep -o '/[^"]*' | tail -1`, pod))
	return fmt.Sprintf("/proc/%d/root%s", pid, path)
}

// ready waits for a client's connections.
func (p *program) ready() {
	p.t.Helper()
	if line, err := p.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		p.t.Fatalf("%s: %q, %v", p.name, line, err)
	}
}

// end stops a client and returns what it counted.
func (p *program) end() *tally {
	p.t.Helper()
	if err := p.in.Close(); err != nil {
		p.t.Fatal(err)
	}
	t := &tally{}
	if err := json.NewDecoder(p.out).Decode(t); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return t
}
