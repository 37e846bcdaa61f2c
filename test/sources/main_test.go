package sources_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/kernel/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// The hosts. The nodes and the host outside are on one wire, the test's own network namespace is the switch.
//
//	n1       the node the contract is about, with the pods a and b
//	n2       another node, with the pod c
//	outside  the nodes' default gateway, and everything behind it
//	behind   a host outside the cluster that n1 is the router of
var hosts = []string{"n1", "n2", "outside", "behind", "a", "b", "c"}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// own are the addresses of each host, IPv4 and IPv6.
var own = map[string][2]netip.Addr{
	"n1": {ip("192.168.50.11"), ip("fd00:50::11")}, "n2": {ip("192.168.50.12"), ip("fd00:50::12")},
	"outside": {ip("203.0.113.10"), ip("2001:db8::10")}, "behind": {ip("198.51.100.2"), ip("2001:db8:f::2")},
	"a": {ip("172.20.1.5"), ip("fd00:20:0:1::5")}, "b": {ip("172.20.1.6"), ip("fd00:20:0:1::6")}, "c": {ip("172.20.2.5"), ip("fd00:20:0:2::5")},
}

// Addresses outside that are no host's own.
var (
	open     = [2]netip.Addr{ip("10.99.0.10"), ip("fd00:99::10")}
	metadata = ip("169.254.169.254")
	behindN1 = [2]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:f::/64")}
)

const wires = `
	ip link add lan type bridge; ip link set lan up
	for h in n1 n2 outside; do ip link add l$h type veth peer name eth0 netns $h; ip link set l$h master lan up; done
	for h in n1/11 n2/12 outside/1; do
		n=${h%/*}; ip -n $n addr add 192.168.50.${h#*/}/24 dev eth0; ip -n $n addr add fd00:50::${h#*/}/64 dev eth0 nodad; ip -n $n link set eth0 up
	done
	for n in n1 n2; do ip -n $n route add default via 192.168.50.1; ip -n $n route add default via fd00:50::1; done
	for a in 203.0.113.10/32 10.99.0.10/32 169.254.169.254/32; do ip -n outside addr add $a dev lo; done
	for a in 2001:db8::10/128 fd00:99::10/128; do ip -n outside addr add $a dev lo; done
	for s in 1 2; do
		ip -n outside route add 172.20.$s.0/24 via 192.168.50.1$s; ip -n outside route add fd00:20:0:$s::/64 via fd00:50::1$s
	done
	ip -n outside route add 10.254.0.0/16 via 192.168.50.11; ip -n outside route add fd00:fe::/112 via fd00:50::11
	for n in outside n2; do ip -n $n route add 198.51.100.0/24 via 192.168.50.11; ip -n $n route add 2001:db8:f::/64 via fd00:50::11; done
	ip -n n1 link add behind type veth peer name eth0 netns behind
	ip -n n1 addr add 198.51.100.1/24 dev behind; ip -n n1 addr add 2001:db8:f::1/64 dev behind nodad; ip -n n1 link set behind up
	ip -n behind addr add 198.51.100.2/24 dev eth0; ip -n behind addr add 2001:db8:f::2/64 dev eth0 nodad; ip -n behind link set eth0 up
	ip -n behind route add default via 198.51.100.1; ip -n behind route add default via 2001:db8:f::1
`

const sysctls = `for c in all default; do echo 0 >/proc/sys/net/ipv6/conf/$c/accept_dad; echo 0 >/proc/sys/net/ipv4/conf/$c/send_redirects
	echo 0 >/proc/sys/net/ipv4/conf/$c/rp_filter; done; echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 1 >/proc/sys/net/ipv4/ip_forward`

// lab is the hosts as network namespaces with their wires.
type lab struct {
	t    *testing.T
	ns   map[string]*netns.NS
	seen *witness
	port int // last source port: each packet has its own, since connection tracking remembers the ones before
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, ns: map[string]*netns.NS{}, seen: newWitness(), port: 15000}
	for _, h := range hosts {
		ns, err := netns.New("/run/netns/" + h)
		if err != nil {
			t.Fatal(err)
		}
		l.ns[h] = ns
		t.Cleanup(func() { _ = ns.Close() })
		l.sh(h, sysctls)
	}
	run(t, wires)
	t.Cleanup(func() { run(t, "for l in lan ln1 ln2 loutside; do ip link del $l; done") })
	return l
}

// sh runs a script in a host.
func (l *lab) sh(host, script string) {
	l.t.Helper()
	if err := l.ns[host].Do(func() error { run(l.t, script); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

func run(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.TrimSpace(script), err, out)
	}
}

func family(v6 bool) string { return map[bool]string{false: "IPv4", true: "IPv6"}[v6] }

func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func name(parts ...any) string { return strings.Join(strings.Fields(fmt.Sprint(parts...)), "-") }
