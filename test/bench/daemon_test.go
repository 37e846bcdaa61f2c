package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/agent/rundir"
	"weft/internal/agent/status"
)

// daemon is a node agent under test: weft's, or flannel's.
type daemon struct {
	tb    testing.TB
	name  string
	url   string // of its store
	store *store
	dir   string
	cmd   *exec.Cmd
	log   *bytes.Buffer
	ended chan error
}

const (
	weft    = "weft"
	flannel = "flannel"
)

// newDaemon is a daemon of the name that has not begun. Benchmarks of one that is not there are skipped.
func newDaemon(tb testing.TB, name string, s *store, url string) *daemon {
	tb.Helper()
	if programs.weft == "" {
		tb.Skip("no bin/weft: make build, or set WEFT_BIN")
	}
	if name == flannel && programs.flanneld == "" {
		tb.Skip("no bin/flanneld: set FLANNELD to one")
	}
	return &daemon{tb: tb, name: name, store: s, url: url, dir: tb.TempDir()}
}

func (d *daemon) args() []string {
	if d.name == flannel {
		return []string{
			programs.flanneld, "-etcd-endpoints", d.url, "-etcd-prefix", d.store.prefix, "-iface", "eth0",
			"-subnet-file", filepath.Join(d.dir, "subnet.env"), "-ip-masq",
		}
	}
	return []string{
		programs.weft, "agent", "--node-name", "bench", "--kubeconfig=", "--etcd-endpoints", d.url, "--etcd-prefix", d.store.prefix,
		"--iface", "eth0", "--subnet-file", filepath.Join(d.dir, "subnet.env"), "--run-dir", filepath.Join(d.dir, "run"),
		"--state-dir", filepath.Join(d.dir, "state"), "--service-cluster-ip-range=192.168.0.0/16", "--pod-runtime", "none", "--kubelet-port", "0", "--healthz-bind=",
	}
}

// start executes it and returns when that was.
func (d *daemon) start() time.Time {
	d.tb.Helper()
	args := d.args()
	d.log, d.ended = &bytes.Buffer{}, make(chan error, 1)
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	at := time.Now()
	if err := d.cmd.Start(); err != nil {
		d.tb.Fatal(err)
	}
	go func(c *exec.Cmd) { d.ended <- c.Wait() }(d.cmd)
	d.tb.Cleanup(d.kill)
	return at
}

// kill ends it at once, as a crash.
func (d *daemon) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	err := <-d.ended
	if d.tb.Failed() {
		d.tb.Logf("%s ended (%v):\n%s", d.name, err, d.log)
	}
	d.cmd = nil
}

// memory is its resident memory, how much of that is no file's, and the most it ever was, in MiB.
func (d *daemon) memory() (rss, anon, peak float64) {
	d.tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.tb.Fatal(err)
	}
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(text), name+":")
		kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.Atoi(kb)
		if err != nil {
			d.tb.Fatalf("%s in %s", name, text)
		}
		return float64(n) / 1024
	}
	return field("VmRSS"), field("RssAnon"), field("VmHWM")
}

// settled waits until it says that everything is as planned, and returns its status and when it said so.
func (d *daemon) settled(limit time.Duration) (s status.Status, at time.Time) {
	d.tb.Helper()
	end := time.Now().Add(limit)
	for time.Now().Before(end) {
		body, err := rundir.Ask(context.Background(), filepath.Join(d.dir, "run"), "/status")
		if err == nil && json.Unmarshal(body, &s) == nil && s.Converged && s.Peers == d.store.n && s.Network.Steps > 0 {
			return s, time.Now()
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			d.tb.Fatalf("%s ended: %v\n%s", d.name, err, d.log)
		case <-time.After(2 * time.Millisecond):
		}
	}
	d.tb.Fatalf("%s is not settled after %s: %+v\n%s", d.name, limit, s, d.log)
	return s, at
}
