package servertest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"weft/internal/kernel/netns"
)

// address is the master's of the walkthrough; the test's network namespace has it on lo.
const address = "172.17.42.30"

func TestMain(m *testing.M) { os.Exit(netns.Main(cleaning{m})) }

// cleaning removes the program a run had to build.
type cleaning struct{ m *testing.M }

func (c cleaning) Run() int {
	code := c.m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	return code
}

// built is the directory of a program built for this run.
var built string

// program returns the weft-server under test.
var program = sync.OnceValues(func() (string, error) {
	for _, env := range []string{"WEFT_BIN", "WEFT_BIN_DIR"} {
		if dir := os.Getenv(env); dir != "" {
			path := filepath.Join(dir, "weft-server")
			_, err := os.Stat(path)
			return path, err
		}
	}
	dir, err := os.MkdirTemp("", "weft-server-test")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "weft-server")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "weft/cmd/weft-server")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build weft-server: %w: %s", err, out)
	}
	return path, nil
})

// underlay gives the namespace the master's address.
var underlay = sync.OnceValue(func() error {
	if out, err := exec.Command("ip", "addr", "add", address+"/16", "dev", "lo").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// server is a weft-server being driven.
type server struct {
	t    *testing.T
	dir  string
	args []string
	cmd  *exec.Cmd
	out  *lines
	log  *lines
	exit chan error
}

// lines is a writer tests can look into while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// newServer prepares a server with a data directory of its own and the walkthrough's ranges.
func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	netns.Need(t)
	if err := underlay(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	args = append([]string{
		"--data-dir=" + dir, "--advertise-address=" + address, "--service-cluster-ip-range=10.254.0.0/16", "--cluster-cidr=172.16.0.0/16",
		"--unsafe-no-fsync", // the disk is not under test
	}, args...)
	return &server{t: t, dir: dir, args: args}
}

// launch starts the program and does not wait for it.
func (s *server) launch() {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	s.out, s.log, s.exit = new(lines), new(lines), make(chan error, 1)
	s.cmd = exec.Command(path, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { s.exit <- s.cmd.Wait() }()
	s.t.Cleanup(func() { s.kill() })
}

// start launches the program and waits until it says it is ready.
func (s *server) start() {
	s.t.Helper()
	begin := time.Now()
	s.launch()
	await(s.t, 60*time.Second, "ready line", func() bool {
		select {
		case err := <-s.exit:
			s.exit <- err
			s.t.Fatalf("weft-server ended: %v\n%s", err, s.log)
		default:
		}
		return strings.Contains(s.out.String(), "\n")
	})
	s.t.Logf("ready after %v", time.Since(begin).Round(10*time.Millisecond))
}

// stop asks the program to end and returns how long it took.
func (s *server) stop() time.Duration {
	s.t.Helper()
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.exit:
		s.exit <- err
		if err != nil {
			s.t.Errorf("SIGTERM: %v\n%s", err, s.log)
		}
	case <-time.After(time.Minute):
		s.t.Fatalf("weft-server does not stop\n%s", s.log)
	}
	return time.Since(begin)
}

// kill ends the program the hard way, when it still runs.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	err := <-s.exit
	s.exit <- err
}

// client returns a client with the identity of a kubeconfig in the data directory.
func (s *server) client(kubeconfig string) kubernetes.Interface {
	s.t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.dir, kubeconfig))
	if err != nil {
		s.t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

func await(t *testing.T, patience time.Duration, what string, done func() bool) {
	t.Helper()
	patience *= 4 // it is for a machine with nothing else to do
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

var readyLine = regexp.MustCompile(`^weft-server ready at https://172\.17\.42\.30:(\d+), kubeconfig (/\S+/admin\.kubeconfig)\n$`)
