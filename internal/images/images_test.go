package images

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// log is an io.Writer for several goroutines.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serve runs a program on a free port of loopback and returns its port and log; it must end well with the test.
func serve(t *testing.T, program func(net.Listener, io.Writer) error) (port string, out *log) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out = &log{}
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() {
		done <- listen(ctx, "localhost:0", out, func(l net.Listener, w io.Writer) error {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			ready <- port
			return program(l, w)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return <-ready, out
}

func TestHTTP(t *testing.T) {
	port, out := serve(t, serveHTTP)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/a?b", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "test")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := os.Hostname()
	want := regexp.MustCompile(`^pod_name=` + regexp.QuoteMeta(name) + `\npod_ip=127.0.0.1\npod_port=` + port +
		`\nclient_address=127.0.0.1\nclient_port=\d+\nrequest=GET /a\nhost=127.0.0.1:` + port + `\n$`)
	if !want.Match(body) {
		t.Errorf("answer %q", body)
	}
	line := regexp.MustCompile(`(?m)^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b HTTP/1\.1" 200 \d+ "-" "test"$`)
	wait(t, "log line", func() bool { return line.MatchString(out.String()) })
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

func TestSSH(t *testing.T) {
	port, out := serve(t, serveSSH)
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	got := make([]byte, len(banner))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != banner {
		t.Fatalf("identification %q, %v", got, err)
	}
	if _, err := io.WriteString(c, "SSH-2.0-test\r\n"); err != nil {
		t.Fatal(err)
	}
	packet, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.BigEndian.Uint32(packet); int(n) != len(packet)-4 || len(packet)%8 != 0 || packet[4] < 4 || packet[5] != 1 {
		t.Errorf("bad packet % x", packet)
	}
	wait(t, "log line", func() bool { return strings.Contains(out.String(), "no logins") })
}

// TestSSHClient asks the real client, where there is one.
func TestSSHClient(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh on this host: apt-get install openssh-client")
	}
	port, _ := serve(t, serveSSH)
	cmd := exec.CommandContext(t.Context(), ssh, "-F", "none", "-o", "BatchMode=yes", "-p", port, "127.0.0.1", "true")
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(text), reason) {
		t.Errorf("ssh: %v: %s", err, text)
	}
}

func TestPaddingAlwaysFits(t *testing.T) {
	for n := range 32 {
		p := disconnect(strings.Repeat("x", n))
		if len(p)%8 != 0 || p[4] < 4 || int(binary.BigEndian.Uint32(p))+4 != len(p) {
			t.Errorf("text of %d: packet of %d with padding %d", n, len(p), p[4])
		}
	}
}

func TestUnknown(t *testing.T) {
	c := Command()
	c.SetArgs([]string{"redis"})
	c.SilenceErrors, c.SilenceUsage = true, true
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), `image "redis": not built in, there are nginx, pause, sshd`) {
		t.Errorf("error %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = listen(t.Context(), l.Addr().String(), io.Discard, serveHTTP)
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
}
