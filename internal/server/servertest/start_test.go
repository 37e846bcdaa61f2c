package servertest

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A start that cannot work ends at once with one line that names the cause, a failing exit code, and nothing left behind.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	newServer(t) // the namespace
	taken, err := net.Listen("tcp", ":16999")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // the cases run after this function returns
	for _, tc := range []struct{ name, args, want string }{
		{"unknown flag", "--frobnicate", "unknown flag: --frobnicate"},
		{"argument", "start", `unexpected argument "start"`},
		{"overlap", "--cluster-cidr=10.0.0.0/8", "--service-cluster-ip-range 10.254.0.0/16 overlaps --cluster-cidr 10.0.0.0/8"},
		{"bad CIDR", "--service-cluster-ip-range=ten", `--service-cluster-ip-range: "ten" is not a CIDR`},
		{"port taken", "--secure-port=16999", "address already in use: another program has the port; stop it or change --secure-port"},
		{"etcd port taken", "--secure-port=17001 --listen-client-urls=http://127.0.0.1:16999", "address already in use"},
		{"foreign address", "--secure-port=17001 --bind-address=192.0.2.1", "this host has no such address"},
		{"certificate missing", "--tls-cert-file=/none --tls-private-key-file=/none", "--tls-cert-file: open /none: no such file or directory"},
		{"certificate without key", "--tls-cert-file=/etc/passwd", "--tls-cert-file needs --tls-private-key-file"},
		{"token file not CSV", "--secure-port=17004 --token-auth-file=/etc/hostname --listen-client-urls=http://127.0.0.1:17002", "token"},
		{"feature gate", "--feature-gates=Nonsense=true", "--feature-gates: "},
		{"data dir refused", "--secure-port=17007 --data-dir=/proc/weft", "--data-dir: "},
		{"etcd not there", "--secure-port=17008 --etcd-servers=http://127.0.0.1:17003", "--etcd-servers http://127.0.0.1:17003: no etcd answers there"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, strings.Fields(tc.args)...)
			s.launch()
			select {
			case err := <-s.exit:
				s.exit <- err
				if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("still runs")
			}
			var complaints []string
			for line := range strings.SplitSeq(strings.TrimSpace(s.log.String()), "\n") {
				if !strings.Contains(line, "waiting for etcd") {
					complaints = append(complaints, line)
				}
			}
			if len(complaints) != 1 || !strings.HasPrefix(complaints[0], "weft-server: ") || !strings.Contains(complaints[0], tc.want) {
				t.Errorf("want one line with %q, got:\n%s", tc.want, s.log)
			}
			if s.out.String() != "" {
				t.Errorf("output: %s", s.out)
			}
			if _, err := os.Stat(s.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %s (%v)", s.dir, err)
			}
		})
	}
}

// As an ordinary user, a directory of somebody else's is a permission error, not a crash.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	s := newServer(t, "--secure-port=17005", "--listen-client-urls=http://127.0.0.1:17006")
	parent := filepath.Dir(s.dir)
	if err := os.Chmod(parent, 0o500); err != nil {
		t.Fatal(err)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	// Root without CAP_DAC_OVERRIDE is as bound by modes as anybody.
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv (util-linux)")
	}
	args := append([]string{"--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", path}, s.args...)
	out, err := exec.Command("setpriv", args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "permission denied (run as its owner or root") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v: %s", err, out)
	}
}

// Two servers on one directory would corrupt it; the second is told so.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	first := newServer(t, "--secure-port=17010", "--listen-client-urls=http://127.0.0.1:17011")
	first.start()
	second := newServer(t, "--secure-port=17012", "--listen-client-urls=http://127.0.0.1:17013")
	second.args[0] = first.args[0]
	second.launch()
	if err := <-second.exit; err == nil || !strings.Contains(second.log.String(), "is in use by another weft-server") {
		t.Errorf("%v: %s", err, second.log)
	}
	second.exit <- nil
	if _, err := os.Stat(filepath.Join(first.dir, "admin.kubeconfig")); err != nil {
		t.Error("the second server removed files of the first")
	}
	// SIGTERM during a start is a stop like any other.
	third := newServer(t, "--secure-port=17014", "--listen-client-urls=http://127.0.0.1:17015")
	third.launch()
	await(t, 10*time.Second, "data directory", func() bool { _, err := os.Stat(third.dir); return err == nil })
	_ = third.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-third.exit:
		third.exit <- err
	case <-time.After(time.Minute):
		t.Fatal("does not stop while it starts")
	}
}
