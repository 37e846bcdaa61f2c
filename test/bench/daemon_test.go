package bench

import (
	"path/filepath"
	"testing"
	"time"

	"weft/internal/agent/status"
	"weft/test/daemon"
)

// process is a node agent under test: weft's, or flannel's.
type process struct {
	daemon.Daemon
	name  string
	store *store
}

const (
	weft    = "weft"
	flannel = "flannel"
)

// newProcess is a daemon of the name that has not begun. Benchmarks of one that is not there are skipped.
func newProcess(tb testing.TB, name string, s *store, url string) *process {
	tb.Helper()
	if programs.weft == "" {
		tb.Skip("no bin/weft: make build, or set WEFT_BIN")
	}
	if name == flannel && programs.flanneld == "" {
		tb.Skip("no bin/flanneld: set FLANNELD to one")
	}
	dir := tb.TempDir()
	args := []string{
		programs.weft, "agent", "--node-name", "bench", "--kubeconfig=", "--etcd-endpoints", url, "--etcd-prefix", s.prefix,
		"--iface", "eth0", "--subnet-file", filepath.Join(dir, "subnet.env"), "--run-dir", filepath.Join(dir, "run"), "--state-dir",
		filepath.Join(dir, "state"), "--service-cluster-ip-range=192.168.0.0/16", "--pod-runtime", "none", "--kubelet-port", "0",
		"--healthz-bind=", "--metrics-bind=",
	}
	if name == flannel {
		args = []string{
			programs.flanneld, "-etcd-endpoints", url, "-etcd-prefix", s.prefix, "-iface", "eth0",
			"-subnet-file", filepath.Join(dir, "subnet.env"), "-ip-masq",
		}
	}
	return &process{daemon.Daemon{TB: tb, Dir: dir, Args: args}, name, s}
}

// settled waits until the agent says that everything is as planned, and returns its status and when it said so.
func (d *process) settled(limit time.Duration) (status.Status, time.Time) {
	d.TB.Helper()
	return d.Settled(limit, func(s status.Status) bool { return s.Peers == d.store.n })
}
