package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	if os.Getenv("LAB_TEST_ATTACHED") != "" {
		fmt.Fprintln(os.Stderr, attachedMain())
		os.Exit(1)
	}
	if kind := os.Getenv("LAB_TEST_FAKE"); kind != "" {
		fmt.Fprintln(os.Stderr, fakeMain(kind))
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

// testMain runs the tests with a directory for their labs, which must be empty at the end.
func testMain(m *testing.M) int {
	base, err := os.MkdirTemp("", "weft-lab-test")
	if err == nil {
		err = os.Setenv(lab.DirVariable, base)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The race detector sleeps a second at the end of every process, which here are many.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if left, err := os.ReadDir(base); err == nil && len(left) > 0 {
		fmt.Fprintln(os.Stderr, "labs left behind:", left)
		code = 1
	}
	_ = os.RemoveAll(base)
	return code
}

// up makes a lab of n hosts without programs that ends with the test.
func up(t *testing.T, name string, n int) *lab.Lab {
	t.Helper()
	t.Parallel()
	l, err := lab.Up(t.Context(), topology.HostsOnly(n), lab.Options{Name: name, HostsOnly: true, Attached: true, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func run(t *testing.T, l *lab.Lab, host, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := l.Exec(ctx, host, "sh", "-c", command)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", host, command, err, out)
	}
	return strings.TrimSpace(out)
}

func TestHosts(t *testing.T) {
	l := up(t, "hosts", 2)
	for command, want := range map[string]string{
		"hostname":          "h1",
		"cat /etc/hostname": "h1",
		"ip -o -4 addr show eth0 | awk '{print $4}'": "172.17.42.31/16",
		"ip route show default":                      "default via 172.17.42.1 dev eth0 ",
		"id -u":                                      "0",
		"cat /proc/1/comm":                           "weft-host",
		"ls /sys/class/net | tr '\\n' ' '":           "eth0 lo ",
		"echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward":           "1",
		"busybox ping -c1 -W2 h2 >/dev/null && echo pong":                                     "pong",
		"busybox ping -c1 -W2 172.17.42.1 >/dev/null && echo pong":                            "pong",
		"touch /usr/x 2>&1 | grep -c 'Read-only\\|denied'":                                    "1",
		"iptables -t nat -A POSTROUTING -j MASQUERADE && iptables-save -t nat | grep -c MASQ": "1",
		"echo $HOME $PATH": "/root /weft/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	} {
		if got := run(t, l, "h1", command); got != strings.TrimSpace(want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	_, err := l.Exec(t.Context(), "h2", "sh", "-c", "echo no >&2; exit 7")
	if e, ok := errors.AsType[*lab.ExecError](err); !ok || e.Code != 7 || e.Stderr != "no" {
		t.Errorf("failing command: %v", err)
	}
	if _, err := l.Exec(t.Context(), "h3", "true"); err == nil || !strings.Contains(err.Error(), "h1, h2") {
		t.Errorf("unknown host: %v", err)
	}
}
