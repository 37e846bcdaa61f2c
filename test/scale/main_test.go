package scale

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/agent/rundir"
	"weft/internal/agent/status"
	"weft/internal/kernel/netns"
	"weft/internal/kernel/nft"
	values "weft/internal/nft"
)

var programs struct{ weft, kubeProxy string }

func TestMain(m *testing.M) {
	dir := os.Getenv("WEFT_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	programs.weft = program(os.Getenv("WEFT"), filepath.Join(dir, "weft"))
	programs.kubeProxy = program(os.Getenv("KUBE_PROXY"), filepath.Join(dir, "kube-proxy"))
	os.Exit(netns.Main(m))
}

// program is the first of the files that is there, as an absolute path.
func program(files ...string) string {
	for _, f := range files {
		if p, err := filepath.Abs(f); f != "" && err == nil {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return ""
}

// run runs a command line, without a shell.
func run(tb testing.TB, line string) {
	tb.Helper()
	args := strings.Fields(line)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v: %s", line, err, out)
	}
}

// underlay gives this namespace an interface with a default route, once.
func underlay(tb testing.TB) {
	tb.Helper()
	netns.Need(tb)
	if exec.Command("ip", "link", "show", "eth0").Run() == nil {
		return
	}
	for _, line := range []string{
		"ip link add eth0 type veth peer name hub", "ip link set hub up", "ip link set eth0 up", "sysctl -qw net.ipv4.ip_forward=1",
		"ip addr add " + hostIP + "/16 dev eth0", "ip route add default via 172.17.0.1",
	} {
		run(tb, line)
	}
}

// daemon is a node agent, or a kube-proxy.
type daemon struct {
	tb    testing.TB
	args  []string
	dir   string
	cmd   *exec.Cmd
	log   *bytes.Buffer
	ended chan error
}

// newAgent is weft's agent of the node "bench", not begun yet.
func newAgent(tb testing.TB, c *cluster, flags ...string) *daemon {
	tb.Helper()
	if programs.weft == "" {
		tb.Skip("no bin/weft: make build, or set WEFT_BIN")
	}
	d := &daemon{tb: tb, dir: tb.TempDir()}
	conf := filepath.Join(d.dir, "net-conf.json")
	if err := os.WriteFile(conf, []byte(`{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}`), 0o600); err != nil {
		tb.Fatal(err)
	}
	d.args = append([]string{
		programs.weft, "agent", "--node-name", "bench", "--kubeconfig", c.kubeconfig(), "--kube-subnet-mgr", "--net-config-path", conf,
		"--iface", "eth0", "--subnet-file", filepath.Join(d.dir, "subnet.env"), "--run-dir", filepath.Join(d.dir, "run"),
		"--state-dir", filepath.Join(d.dir, "state"), "--pod-runtime", "none", "--kubelet-port", "0", "--healthz-bind=", "--metrics-bind=", "--mtu-probe", "0",
	}, flags...)
	return d
}

// start executes it and returns when that was.
func (d *daemon) start() time.Time {
	d.tb.Helper()
	d.log, d.ended = &bytes.Buffer{}, make(chan error, 1)
	d.cmd = exec.Command(d.args[0], d.args[1:]...)
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
		text := d.log.String()
		d.tb.Logf("%s ended (%v):\n%s", d.args[0], err, text[max(0, len(text)-5000):])
	}
	d.cmd = nil
}

// status is what the agent says of itself, zero when it does not answer.
func (d *daemon) status() (s status.Status) {
	body, err := rundir.Ask(context.Background(), filepath.Join(d.dir, "run"), "/status")
	if err != nil || json.Unmarshal(body, &s) != nil {
		return status.Status{}
	}
	return s
}

// settled waits until the agent says that everything is as planned, with that many services, and returns when it did.
func (d *daemon) settled(services int, limit time.Duration) (s status.Status, at time.Time) {
	d.tb.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if s = d.status(); s.Converged && s.Services == services && s.Network.Steps > 0 {
			return s, time.Now()
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			d.tb.Fatalf("%s ended: %v\n%s", d.args[0], err, d.log)
		case <-time.After(2 * time.Millisecond):
		}
	}
	d.tb.Fatalf("not settled after %s: %+v\n%s", limit, s, d.log)
	return s, at
}

// memory is the resident memory and the most it ever was, in MiB.
func (d *daemon) memory() (rss, peak float64) {
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
	return field("VmRSS"), field("VmHWM")
}

// processor is the processor time it has used, in user and kernel mode.
func (d *daemon) processor() time.Duration {
	d.tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		d.tb.Fatal(err)
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		d.tb.Fatalf("stat %s", text)
	}
	return time.Duration(user+system) * time.Second / 100
}

// events are the kernel's messages about changes of nf_tables.
type events struct {
	tb testing.TB
	fd int
}

func watchTables(tb testing.TB) *events {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	const group = 7 // NFNLGRP_NFTABLES
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (group - 1)}); err != nil {
		tb.Fatal(err)
	}
	return &events{tb, fd}
}

// drain throws away what came so far.
func (e *events) drain() {
	buf := make([]byte, 1<<16)
	for {
		if _, _, err := unix.Recvfrom(e.fd, buf, unix.MSG_DONTWAIT); err == unix.EAGAIN {
			return
		}
	}
}

// next waits for a change, and returns when the message of it came.
func (e *events) next(limit time.Duration) (at time.Time, ok bool) {
	buf := make([]byte, 1<<16)
	p := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if n, err := unix.Poll(p, int(time.Until(end)/time.Millisecond)+1); n > 0 && err == nil {
			at = time.Now()
			_, _, _ = unix.Recvfrom(e.fd, buf, 0)
			return at, true
		}
	}
	return at, false
}

// endpoints counts the elements of the map of endpoints in the kernel.
func endpoints(tb testing.TB) int {
	tb.Helper()
	c, err := nft.Open()
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	n, err := c.Len(values.INet, values.TableName, values.Set{Name: "eps4"})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// quantile is the value below which the part q of the samples lies.
func quantile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
