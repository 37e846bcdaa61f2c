// Package etcdtest runs the distribution's etcd on loopback for tests. Nothing but tests imports it.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Server is a running etcd.
type Server struct {
	URL  string // of the client port
	Data string // data directory

	t     testing.TB
	args  []string
	cmd   *exec.Cmd
	log   *bytes.Buffer
	plain bool
}

// Binary returns the etcd to run: WEFT_ETCD, else the one in the path; the test is skipped when there is none.
func Binary(t testing.TB) string {
	t.Helper()
	if b := os.Getenv("WEFT_ETCD"); b != "" {
		return b
	}
	b, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd is not installed: apt-get install etcd-server")
	}
	return b
}

// Start runs an etcd with an empty data directory and further flags, and ends it with the test.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	return start(t, "http", flags)
}

// StartTLS is Start with TLS on the client port; flags name the files.
func StartTLS(t testing.TB, flags ...string) *Server {
	t.Helper()
	return start(t, "https", flags)
}

func start(t testing.TB, scheme string, flags []string) *Server {
	t.Helper()
	binary := Binary(t)
	s := &Server{t: t, Data: filepath.Join(t.TempDir(), "etcd"), plain: scheme == "http"}
	s.URL = fmt.Sprintf("%s://127.0.0.1:%d", scheme, port(t))
	peer := fmt.Sprintf("http://127.0.0.1:%d", port(t))
	s.args = append([]string{
		binary, "--name", "test", "--data-dir", s.Data, "--listen-client-urls", s.URL, "--advertise-client-urls", s.URL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
		"--heartbeat-interval", "50", "--election-timeout", "500",
	}, flags...)
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// ports counts the ports this process has tried.
var ports atomic.Int32

// port is a free one that the kernel gives to no socket by itself: while an etcd is down, its client would soon have its port. Processes that
// run at the same time begin at different ones.
func port(t testing.TB) int {
	t.Helper()
	const first, each, processes = 10000, 40, 500
	for range processes * each {
		p := first + (os.Getpid()%processes*each+int(ports.Add(1)))%(processes*each)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		_ = l.Close()
		return p
	}
	t.Fatal("no free port")
	return 0
}

// Start starts it again after Kill, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.log = &bytes.Buffer{}
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start etcd: %v", err)
	}
	if !s.plain {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := s.Client()
	defer c.Close()
	if _, err := c.Get(ctx, "ready"); err != nil {
		s.Kill()
		s.t.Fatalf("etcd does not answer: %v\n%s", err, s.log)
	}
}

// Kill ends it at once.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Stop makes it silent without closing anything, as a host that lost its power; Continue wakes it.
func (s *Server) Stop() { s.signal(syscall.SIGSTOP) }

// Continue ends a Stop.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal etcd: %v", err)
	}
}

// Client returns a plain client, closed with the test.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.URL}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}
