package pmtu_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/pmtu"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

func sh(t *testing.T, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if out, err := exec.Command("sh", "-c", l).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", l, err, out)
		}
	}
}

// filtered makes the router keep to itself that packets are too large, as firewalls do.
const filtered = `nft -f - <<E
table inet quiet {
	chain out {
		type filter hook output priority 0;
		icmp type destination-unreachable drop
		icmpv6 type packet-too-big drop
	}
}
E`

// routed makes two hosts with a router between them: this one, and the far one at 10.9.2.2 and fd09:2::2.
func routed(t *testing.T) {
	t.Helper()
	for _, name := range []string{"router", "far"} {
		n, err := netns.New("/run/netns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
	}
	sh(t, "ip link add near mtu 1500 type veth peer name r1 mtu 1500 netns router",
		"ip -n router link add name r2 mtu 1500 type veth peer name eth0 mtu 1500 netns far",
		"ip netns exec router sh -c 'for f in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; do echo 1 > $f; done'",
		"ip addr add 10.9.1.1/24 dev near; ip addr add fd09:1::1/64 dev near nodad; ip link set near up",
		"ip -n router addr add 10.9.1.254/24 dev r1; ip -n router addr add fd09:1::fe/64 dev r1 nodad; ip -n router link set r1 up",
		"ip -n router addr add 10.9.2.254/24 dev r2; ip -n router addr add fd09:2::fe/64 dev r2 nodad; ip -n router link set r2 up",
		"ip -n far addr add 10.9.2.2/24 dev eth0; ip -n far addr add fd09:2::2/64 dev eth0 nodad; ip -n far link set eth0 up",
		"ip route add default via 10.9.1.254; ip -6 route add default via fd09:1::fe",
		"ip -n far route add default via 10.9.2.254; ip -n far -6 route add default via fd09:2::fe",
		"ip netns exec router "+filtered)
	t.Cleanup(func() { sh(t, "ip link del near") })
}

// TestPath finds the MTU of a hop that tells nobody, in both families, down and up.
func TestPath(t *testing.T) {
	netns.Need(t)
	routed(t)
	p, err := pmtu.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	for _, far := range []netip.Addr{netip.MustParseAddr("10.9.2.2"), netip.MustParseAddr("fd09:2::2")} {
		for _, mtu := range []string{"1500", "1400", "1281", "1499", "1500"} {
			sh(t, "ip -n router link set r2 mtu "+mtu+"; ip -n far link set eth0 mtu "+mtu)
			sh(t, "ip -n router addr replace fd09:2::fe/64 dev r2 nodad") // an MTU below IPv6's takes the address away
			begun := time.Now()
			got, err := p.Path(ctx, far, 1500)
			if err != nil || mtu != strconv.Itoa(got) {
				t.Errorf("%s with a hop of %s: %d %v", far, mtu, got, err)
			}
			t.Logf("%s, hop of %s: %s", far, mtu, time.Since(begun).Round(time.Millisecond))
			if larger := p.Larger(ctx, far, got, 1500); larger != got {
				t.Errorf("%s: %d was found, now %d fits", far, got, larger)
			}
		}
		if far.Is6() {
			break
		}
		sh(t, "ip -n far link set eth0 down")
		if got, err := p.Path(ctx, far, 1500); !errors.Is(err, pmtu.ErrSilent) {
			t.Errorf("%s is down: %d %v", far, got, err)
		}
		sh(t, "ip -n far link set eth0 up; ip -n far addr replace fd09:2::2/64 dev eth0 nodad; ip -n far route replace default via 10.9.2.254",
			"ip -n far -6 route replace default via fd09:2::fe")
	}
	// A host that answers only now and then is not taken for one behind a narrow hop.
	sh(t, "ip netns exec far nft 'add table ip seldom; add chain ip seldom in { type filter hook input priority 0; }; "+
		"add rule ip seldom in icmp type echo-request limit rate over 2/second burst 1 packets drop'")
	for range 3 {
		if got, err := p.Path(ctx, netip.MustParseAddr("10.9.2.2"), 1500); !errors.Is(err, pmtu.ErrSilent) && got != 1500 {
			t.Errorf("a host that limits its answers: %d %v", got, err)
		}
	}
	if got, err := p.Path(ctx, netip.MustParseAddr("10.9.1.1"), 9000); err != nil || got != 9000 {
		t.Errorf("the host itself: %d %v", got, err)
	}
	if got, err := p.Path(ctx, netip.MustParseAddr("10.9.1.254"), 9000); err != nil || got != 1500 {
		t.Errorf("a ceiling above the interface's MTU: %d %v", got, err)
	}
	if _, err := p.Path(ctx, netip.MustParseAddr("10.9.1.254"), 576); err != nil {
		t.Errorf("a ceiling below the floor: %v", err)
	}
}
