package interop

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

const (
	master = "kube-master"
	etcd   = "http://172.17.42.30:2379"
	hosts  = 48 // for all tests together; a host costs little
)

// patient bounds what is waited for: the machine may be busy with other things.
const patient = time.Minute

// shared is the lab of all tests: one control plane and plain hosts. Networks are apart by etcd prefix or by their ranges.
var shared struct {
	once sync.Once
	lab  *lab.Lab
	err  error
	next atomic.Int32
}

func labUp() (*lab.Lab, error) {
	text := "hosts:\n- {name: " + master + ", role: master}\n"
	for i := range hosts {
		text += fmt.Sprintf("- {name: h%d, role: plain}\n", i+1)
	}
	top, err := topology.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	return lab.Up(context.Background(), top, lab.Options{
		Name: fmt.Sprintf("interop-%d", os.Getpid()), Attached: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: 2 * time.Minute,
	})
}

func downShared() error {
	if shared.lab == nil {
		return nil
	}
	return shared.lab.Down()
}

// world is the lab as one test sees it.
type world struct {
	*lab.Lab
	t *testing.T
}

func inLab(t *testing.T) world {
	t.Helper()
	shared.once.Do(func() { shared.lab, shared.err = labUp() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return world{shared.lab, t}
}

// host is one of the lab's that no other test has.
type host struct {
	world
	name   string
	addr   netip.Addr
	addr6  netip.Addr
	subnet netip.Prefix // of its pods, once it is leased
	v6     netip.Prefix
	pod    netip.Addr // the pod's addresses, once there is one
	pod6   netip.Addr
	enter  string // what enters the pod's network namespace
}

// take returns a host with an IPv6 address beside the IPv4 one, that forwards.
func (w world) take() *host {
	w.t.Helper()
	i := int(shared.next.Add(1))
	if i > hosts {
		w.t.Fatalf("more than %d hosts: raise the constant", hosts)
	}
	h := &host{world: w, name: fmt.Sprintf("h%d", i), addr6: netip.MustParseAddr(fmt.Sprintf("fd17::%x", i))}
	top, _ := w.Topology().Host(h.name)
	h.addr = top.Address
	h.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0;"+
		" ip addr add %s/64 dev eth0 nodad; ip -6 route replace default via fd17::ffff dev eth0", h.addr6)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			h.logs()
		}
		h.stopAll()
	})
	return h
}

// stopAll ends the host's programs, so that they do not take part in what other tests do.
func (h *host) stopAll() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	list, err := h.Programs(ctx, h.name)
	if err != nil {
		h.t.Error(err)
	}
	for _, p := range list {
		if p.Name != flannel && p.Name != lab.Agent {
			continue // pods may stay
		}
		if err := h.Stop(ctx, h.name, p.Name); err != nil && !strings.Contains(err.Error(), "not running") {
			h.t.Log(err)
		}
	}
}

func (h *host) logs() {
	for _, p := range []string{flannel, lab.Agent} {
		text, err := os.ReadFile(h.LogFile(h.name, p))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		h.t.Logf("%s %s:\n%s", h.name, p, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
	out, _ := h.sh("ip -br addr; ip route; ip -6 route | grep -v fe80; ip -d link show type vxlan; bridge fdb show | grep dst; ip neigh show nud permanent")
	h.t.Logf("%s:\n%s", h.name, out)
}

// sh runs a shell command on the host.
func (h *host) sh(format string, args ...any) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	out, err := h.Exec(ctx, h.name, "sh", "-c", format)
	return strings.TrimSpace(out), err
}

func (h *host) must(format string, args ...any) string {
	h.t.Helper()
	out, err := h.sh(format, args...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", h.name, err, out)
	}
	return out
}

// run starts a program that goes on.
func (h *host) run(program string, argv ...string) {
	h.t.Helper()
	if err := h.Run(h.t.Context(), h.name, program, argv...); err != nil {
		h.t.Fatalf("%s: start %s: %v", h.name, program, err)
	}
}

// says is a check that a command prints all that is wanted.
func (h *host) says(command string, want ...string) func() error {
	return func() error {
		out, err := h.sh("%s", command)
		if err != nil {
			return err
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				return fmt.Errorf("%s: %s: no %q in:\n%s", h.name, command, w, out)
			}
		}
		return nil
	}
}

// silent is a check that a command prints nothing of what is not wanted.
func (h *host) silent(command string, not ...string) func() error {
	return func() error {
		out, _ := h.sh("%s", command) // a chain that is not there is an error, and what is wanted
		for _, w := range not {
			if strings.Contains(out, w) {
				return fmt.Errorf("%s: %s: still %q in:\n%s", h.name, command, w, out)
			}
		}
		return nil
	}
}

// eventually waits until check returns nil, and fails the test when that takes too long.
func (w world) eventually(what string, limit time.Duration, check func() error) time.Duration {
	w.t.Helper()
	begun := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > limit {
			w.t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// kubectl runs the real one on the master.
func (w world) kubectl(args ...string) string {
	w.t.Helper()
	out, err := w.Kubectl(w.t.Context(), args...)
	if err != nil {
		w.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// etcdctl runs the client on the master.
func (w world) etcdctl(args ...string) string {
	w.t.Helper()
	out, err := w.Exec(w.t.Context(), master, append([]string{"env", "ETCDCTL_API=3", "etcdctl", "--endpoints=" + etcd}, args...)...)
	if err != nil {
		w.t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// podIP notes one of the pod's addresses.
func (h *host) podIP(text string) {
	h.t.Helper()
	a, err := netip.ParseAddr(text)
	if err != nil {
		h.t.Fatal(err)
	}
	if a.Is6() {
		h.pod6 = a
	} else {
		h.pod = a
	}
}
