package scale

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/agent/status"
	"weft/internal/kernel/netns"
	"weft/internal/kernel/nft"
	values "weft/internal/nft"
	"weft/test/daemon"
)

var programs struct{ weft, kubeProxy string }

func TestMain(m *testing.M) {
	programs.weft, programs.kubeProxy = daemon.Find("WEFT", "weft"), daemon.Find("KUBE_PROXY", "kube-proxy")
	os.Exit(netns.Main(m))
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
		daemon.Run(tb, line)
	}
}

// process is a node agent, or a kube-proxy.
type process struct{ daemon.Daemon }

// newAgent is weft's agent of the node "bench", not begun yet.
func newAgent(tb testing.TB, c *cluster, flags ...string) *process {
	tb.Helper()
	if programs.weft == "" {
		tb.Skip("no bin/weft: make build, or set WEFT_BIN")
	}
	d := &process{daemon.Daemon{TB: tb, Dir: tb.TempDir()}}
	conf := filepath.Join(d.Dir, "net-conf.json")
	if err := os.WriteFile(conf, []byte(`{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}`), 0o600); err != nil {
		tb.Fatal(err)
	}
	d.Args = append([]string{
		programs.weft, "agent", "--node-name", "bench", "--kubeconfig", c.kubeconfig(), "--kube-subnet-mgr", "--net-config-path", conf,
		"--iface", "eth0", "--subnet-file", filepath.Join(d.Dir, "subnet.env"), "--run-dir", filepath.Join(d.Dir, "run"),
		"--state-dir", filepath.Join(d.Dir, "state"), "--pod-runtime", "none", "--kubelet-port", "0", "--healthz-bind=", "--metrics-bind=", "--mtu-probe", "0",
	}, flags...)
	return d
}

// settled waits until the agent says that everything is as planned, with that many services, and returns when it did.
func (d *process) settled(services int, limit time.Duration) (status.Status, time.Time) {
	d.TB.Helper()
	return d.Settled(limit, func(s status.Status) bool { return s.Services == services })
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
