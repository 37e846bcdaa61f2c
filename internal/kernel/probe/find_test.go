package probe_test

import (
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/probe"
)

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", c, err, out)
		}
	}
}

func texts(addrs []netip.Addr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// TestAddressesInOrder: the kernel's flags of an address decide which is the node's own.
func TestAddressesInOrder(t *testing.T) {
	netns.Need(t)
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0); err != nil {
		t.Skip(err)
	}
	ip(t, "link add bond9 type veth peer name bond9p", "link set bond9p up", "link set bond9 address 02:00:00:00:00:09 up",
		"link add bond9.12 type veth peer name v12", "link set v12 up", "link set bond9.12 address 02:00:00:00:00:09 up",
		"addr add 169.254.1.1/16 dev bond9", "addr add 172.17.42.31/16 dev bond9", "addr add 172.17.42.99/16 dev bond9",
		"addr add 2001:db8::bad/64 dev bond9 preferred_lft 0", "addr add 2001:db8::31/64 dev bond9", "addr add 2001:db8::99/64 dev bond9",
		"addr add 192.168.12.1/24 dev bond9.12", "route add default via 192.168.12.254", "-6 route add default via 2001:db8::1 dev bond9")
	t.Cleanup(func() { ip(t, "link del v12", "link del bond9p") })
	for _, x := range []struct {
		name   string
		choice probe.Choice
		dev    string
		addrs  string
	}{
		// IPv6 addresses are listed newest first, so ::99 comes before ::31.
		{"name", probe.Choice{Names: []string{"bond9"}}, "bond9", "172.17.42.31 172.17.42.99 2001:db8::99 2001:db8::31 2001:db8::bad 169.254.1.1 fe80::ff:fe00:9"},
		{"default route", probe.Choice{}, "bond9.12", "192.168.12.1 fe80::ff:fe00:9"},
		{"secondary address", probe.Choice{Names: []string{"172.17.42.99"}}, "bond9", "172.17.42.99 172.17.42.31 2001:db8::99 2001:db8::31 2001:db8::bad 169.254.1.1 fe80::ff:fe00:9"},
		{"IPv6 address", probe.Choice{Names: []string{"2001:db8::31"}}, "bond9", "2001:db8::31 172.17.42.31 172.17.42.99 2001:db8::99 2001:db8::bad 169.254.1.1 fe80::ff:fe00:9"},
		{"pattern", probe.Choice{Patterns: []*regexp.Regexp{regexp.MustCompile(`^bond9\.`)}}, "bond9.12", "192.168.12.1 fe80::ff:fe00:9"},
		{"can reach", probe.Choice{CanReach: netip.MustParseAddr("192.168.12.77")}, "bond9.12", "192.168.12.1 fe80::ff:fe00:9"},
		{"can reach by IPv6", probe.Choice{CanReach: netip.MustParseAddr("2001:db9::1")}, "bond9", ""},
		{"public address", probe.Choice{Names: []string{"bond9"}, Prefer: []netip.Addr{netip.MustParseAddr("2001:db8::31"), {}}}, "bond9", "2001:db8::31 172.17.42.31 172.17.42.99 2001:db8::99 2001:db8::bad 169.254.1.1 fe80::ff:fe00:9"},
	} {
		u, err := probe.Find(x.choice)
		if err != nil || u.Dev != x.dev || x.addrs != "" && strings.Join(texts(u.Addrs), " ") != x.addrs {
			t.Errorf("%s: %s %v, %v\nwant %s %s", x.name, u.Dev, texts(u.Addrs), err, x.dev, x.addrs)
		}
		if slices.Contains(u.Addrs, netip.MustParseAddr("127.0.0.1")) {
			t.Errorf("%s: loopback", x.name)
		}
	}
	ip(t, "route del default")
	if u, err := probe.Find(probe.Choice{}); err != nil || u.Dev != "bond9" || u.Gateway.String() != "2001:db8::1" {
		t.Errorf("IPv6's default route alone: %+v %v", u, err)
	}
	ip(t, "link set bond9 down", "link set bond9 name bond8", "link set bond8 up")
	if _, err := probe.Find(probe.Choice{Names: []string{"bond9"}}); err == nil {
		t.Error("the old name is still found")
	}
	if u, err := probe.Find(probe.Choice{Names: []string{"172.17.42.31"}}); err != nil || u.Dev != "bond8" {
		t.Errorf("after the interface was renamed: %+v %v", u, err)
	}
}

// TestTentative: an address under duplicate address detection is better than a link-local one, as it will be the node's in a second.
func TestTentative(t *testing.T) {
	netns.Need(t)
	ip(t, "link add t0 type veth peer name t1", "link set t1 up", "link set t0 up", "addr add 2001:db8:5::1/64 dev t0")
	t.Cleanup(func() { ip(t, "link del t0") })
	u, err := probe.Find(probe.Choice{Names: []string{"t0"}})
	if err != nil || u.Addr(true).String() != "2001:db8:5::1" {
		t.Errorf("%v %v", texts(u.Addrs), err)
	}
}

// TestRoutesAreWatched: with --iface-can-reach any route may change the choice.
func TestRoutesAreWatched(t *testing.T) {
	netns.Need(t)
	ip(t, "link add w0 type veth peer name w1", "link set w0 addrgenmode none", "link set w1 addrgenmode none", // an address comes seconds later
		"link set w1 up", "link set w0 up", "addr add 172.18.0.1/16 dev w0")
	t.Cleanup(func() { ip(t, "link del w0") })
	for reach, want := range map[string]bool{"": false, "192.0.2.1": true} {
		var c probe.Choice
		if reach != "" {
			c.CanReach = netip.MustParseAddr(reach)
		}
		ch, err := probe.Watch(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		told := func(limit time.Duration) bool {
			select {
			case <-ch:
				return true
			case <-time.After(limit):
				return false
			}
		}
		got, limit := !want, 200*time.Millisecond
		if want {
			limit = 30 * time.Second
		}
		for try := 0; got != want && try < 5; try++ { // the kernel may say late what was done before, but not each time
			for told(100 * time.Millisecond) {
				continue
			}
			ip(t, "route add 192.0.2.0/24 via 172.18.0.2 proto 119", "route del 192.0.2.0/24")
			ip(t, "route add 192.0.2.0/24 via 172.18.0.2")
			if got = told(limit); got != want {
				ip(t, "route del 192.0.2.0/24")
			}
		}
		if got != want {
			t.Fatalf("reach %q: event %v, want %v", reach, got, want)
		}
		ip(t, "route del 192.0.2.0/24")
	}
}
