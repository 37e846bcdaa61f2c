package wg_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/kernel"
	"weft/internal/kernel/netns"
	"weft/internal/kernel/tun/wg"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/wireguard"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// host is a host with one pod, each a network namespace.
type host struct {
	t         testing.TB
	name      string
	ns, pod   *netns.NS
	addr      netip.Addr
	lease     api.Lease
	engine    *wg.Engine
	kernel    *kernel.Netns
	want      netstate.State
	podV4, v6 netip.Addr
	key, psk  wg.Key
	options   overlay.Options
}

// ip runs ip(8) for each line.
func ip(t testing.TB, format string, args ...any) {
	t.Helper()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		if f := strings.Fields(line); len(f) > 0 {
			if out, err := exec.Command("ip", f...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", strings.TrimSpace(line), err, out)
			}
		}
	}
}

// newHosts makes two hosts on one wire, each with a pod.
func newHosts(t testing.TB) (a, b *host) {
	t.Helper()
	netns.Need(t)
	a, b = newHost(t, 1), newHost(t, 2)
	ip(t, `-n %s link add eth0 mtu 1500 type veth peer name eth0 netns %s
		-n %[1]s addr add 10.99.0.1/24 dev eth0
		-n %[2]s addr add 10.99.0.2/24 dev eth0
		-n %[1]s addr add fd99::1/64 dev eth0 nodad
		-n %[2]s addr add fd99::2/64 dev eth0 nodad
		-n %[1]s link set eth0 up
		-n %[2]s link set eth0 up`, a.name, b.name)
	// What is sent before the link is quite up is lost: a refusal says that it is.
	if _, err := dialFor(a.ns, &net.TCPAddr{IP: net.IPv4(10, 99, 0, 2), Port: 9}, time.Minute); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	return a, b
}

func newHost(t testing.TB, i int) *host {
	t.Helper()
	open := func(name string) *netns.NS {
		ns, err := netns.New("/run/netns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns.Close() })
		must(t, ns.Do(func() error { // or neighbours are first found after a second
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		}))
		return ns
	}
	var err error
	h := &host{t: t, name: fmt.Sprintf("host%d", i), addr: netip.AddrFrom4([4]byte{10, 99, 0, byte(i)})}
	h.ns, h.pod = open(h.name), open(fmt.Sprintf("pod%d", i))
	h.podV4 = netip.AddrFrom4([4]byte{10, 1, byte(i), 5})
	h.v6 = netip.MustParseAddr(fmt.Sprintf("fd10:0:0:%d::5", i))
	h.lease = api.Lease{
		Node: h.name, BackendType: wireguard.Name, PublicIP: h.addr, PublicIPv6: h.addr6(), Subnet: netip.PrefixFrom(h.podV4, 24).Masked(), SubnetV6: netip.PrefixFrom(h.v6, 64).Masked(),
	}
	must(t, h.ns.Do(func() error {
		for f, v := range map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		} {
			if err := os.WriteFile("/proc/sys/"+f, []byte(v), 0); err != nil {
				return err
			}
		}
		return nil
	}))
	mtu := 1500 - wireguard.Overhead
	ip(t, `-n host%[1]d link add pod mtu %[2]d type veth peer name eth0 mtu %[2]d netns pod%[1]d
		-n host%[1]d addr add 10.1.%[1]d.1/24 dev pod
		-n host%[1]d addr add fd10:0:0:%[1]d::1/64 dev pod nodad
		-n host%[1]d link set pod up
		-n pod%[1]d addr add 10.1.%[1]d.5/24 dev eth0
		-n pod%[1]d addr add fd10:0:0:%[1]d::5/64 dev eth0 nodad
		-n pod%[1]d link set eth0 up
		-n pod%[1]d route add default via 10.1.%[1]d.1
		-n pod%[1]d route add default via fd10:0:0:%[1]d::1`, i, mtu)
	h.key, err = wg.LoadKey(filepath.Join(t.TempDir(), "key"), "")
	must(t, err)
	h.lease.WGKey, h.options = h.key.PublicKey().String(), overlay.Options{Userspace: true}
	h.lease.WGPort, h.lease.WGPortV6 = wireguard.Ports(h.options)
	k, err := kernel.Open(h.ns.Path())
	must(t, err)
	h.kernel = k
	t.Cleanup(func() { _ = k.Close() })
	h.start()
	t.Cleanup(func() { _ = h.engine.Close() })
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start makes a new engine, as a restarted agent does.
func (h *host) start() {
	h.engine = wg.New(wg.Options{Devices: wireguard.Devices(), Key: h.key, PSK: h.psk})
}

// addr6 is the host's underlay address of IPv6.
func (h *host) addr6() netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd99::%d", h.addr.As4()[3]))
}

// apply brings the host to the plan for the leases and returns the number of kernel ops it took.
func (h *host) apply(leases ...api.Lease) int {
	h.t.Helper()
	h.want = h.plan(leases)
	must(h.t, h.ns.Do(func() error { return h.engine.Prepare(h.want) }))
	n := h.converge(h.want)
	must(h.t, h.ns.Do(func() error { return h.engine.Apply(h.want) }))
	return n
}

// plan is what the host wants.
func (h *host) plan(leases []api.Lease) netstate.State {
	self := overlay.Self{
		Lease: h.lease, Network: netip.MustParsePrefix("10.1.0.0/16"), NetworkV6: netip.MustParsePrefix("fd10::/48"),
		Dev: "eth0", MTU: 1500, Addr: h.addr, AddrV6: h.addr6(), Options: h.options,
	}
	return wireguard.Backend{}.Plan(self, leases)
}

// converge applies what the kernel applies, and checks that it reads back.
func (h *host) converge(want netstate.State) int {
	h.t.Helper()
	want = want.Select(func(o netstate.Object) bool { return kernel.Applies(o.Kind()) })
	n := 0
	for range 3 {
		have, err := h.kernel.Read(context.Background(), want)
		must(h.t, err)
		ops := netstate.Diff(want, have)
		if len(ops) == 0 {
			return n
		}
		n += len(ops)
		must(h.t, h.kernel.Apply(context.Background(), ops))
	}
	have, err := h.kernel.Read(context.Background(), want)
	must(h.t, err)
	if ops := netstate.Diff(want, have); len(ops) > 0 {
		h.t.Fatalf("%s: left to do: %v", h.name, ops)
	}
	return n
}

// listen listens in the namespace.
func listen(t testing.TB, ns *netns.NS, a netip.Addr) net.Listener {
	t.Helper()
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial connects from the namespace.
func dial(ns *netns.NS, to net.Addr) (net.Conn, error) { return dialFor(ns, to, 30*time.Second) }

func dialFor(ns *netns.NS, to net.Addr, limit time.Duration) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		c, err = net.DialTimeout(to.Network(), to.String(), limit)
		return err
	})
	return c, err
}
