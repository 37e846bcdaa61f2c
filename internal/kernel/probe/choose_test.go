package probe

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// table is a routing table for the tests.
type table struct {
	to       map[string]string // address to device
	src      netip.Addr
	defaults []string
}

func (t table) To(ip netip.Addr) (string, netip.Addr, error) {
	if dev, ok := t.to[ip.String()]; ok {
		return dev, t.src, nil
	}
	return "", netip.Addr{}, errors.New("there is no route to it")
}

func (t table) Defaults() ([]string, error) { return t.defaults, nil }

func dev(name string, up bool, addrs ...string) device {
	d := device{name: name, up: up, mtu: 1500}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		d.addrs = append(d.addrs, address{p, rankOf(p.Addr(), 0)})
	}
	return d
}

// host has what hosts have: two interfaces, a bond with a port, a VLAN, the overlay's own device, one that is down.
func host() []device {
	lo := dev("lo", true, "127.0.0.1/8", "::1/128")
	lo.loopback = true
	port := dev("eth2", true)
	port.master = "bond0"
	pod := dev("veth1", true, "172.16.28.1/32")
	pod.alias = "weft:pod:uid:default/a"
	return []device{
		lo, dev("eth0", true, "172.17.42.31/16", "172.17.42.99/16", "fe80::1/64"), dev("eth1", false, "10.0.0.1/24"), port,
		dev("bond0", true, "192.168.7.1/24", "2001:db8::7/64"), dev("bond0.12", true, "192.168.12.1/24"),
		dev("flannel.1", true, "172.16.28.0/32"), pod, dev("ll0", true, "fe80::9/64"),
	}
}

func TestChoose(t *testing.T) {
	routes := table{
		to: map[string]string{"192.168.12.9": "bond0.12", "172.16.78.5": "flannel.1", "10.0.0.9": "gone0"}, src: netip.MustParseAddr("192.168.12.1"),
		defaults: []string{"eth1", "eth0"},
	}
	pattern := func(all ...string) (out []*regexp.Regexp) {
		for _, p := range all {
			out = append(out, regexp.MustCompile(p))
		}
		return out
	}
	for _, x := range []struct {
		name   string
		choice Choice
		dev    string
		at     string // the address that led there
		tried  string // or the error
	}{
		{"by the default route, one that is down is passed over", Choice{}, "eth0", "", ""},
		{"by name", Choice{Names: []string{"bond0"}}, "bond0", "", ""},
		{"by a secondary address", Choice{Names: []string{"172.17.42.99"}}, "eth0", "172.17.42.99", ""},
		{"by an IPv6 address", Choice{Names: []string{"2001:db8::7"}}, "bond0", "2001:db8::7", ""},
		{"by an IPv4 address in IPv6 form", Choice{Names: []string{"::ffff:172.17.42.31"}}, "eth0", "172.17.42.31", ""},
		{"the second name, as the first is down", Choice{Names: []string{"eth1", "bond0.12"}}, "bond0.12", "", ""},
		{"names before patterns", Choice{Names: []string{"bond0"}, Patterns: pattern("eth")}, "bond0", "", ""},
		{"pattern of a name", Choice{Patterns: pattern("^bond0$")}, "bond0", "", ""},
		{"pattern of an address", Choice{Patterns: pattern(`^192\.168\.12\.`)}, "bond0.12", "192.168.12.1", ""},
		{"the second pattern", Choice{Patterns: pattern("^wlan", "^bond")}, "bond0", "", ""},
		{"a pattern that our own devices match too", Choice{Patterns: pattern(`^172\.16\.|bond0\.12`)}, "bond0.12", "", ""},
		{"by route", Choice{CanReach: netip.MustParseAddr("192.168.12.9")}, "bond0.12", "192.168.12.1", ""},
		{"a name that fails, then the route", Choice{Names: []string{"eth7"}, CanReach: netip.MustParseAddr("192.168.12.9")}, "bond0.12", "192.168.12.1", ""},
		{"link-local when there is nothing else", Choice{Names: []string{"ll0"}}, "ll0", "", ""},

		{"no such name", Choice{Names: []string{"eth7"}}, "", "", "--iface=eth7: there is no such interface (interfaces here: lo, eth0, "},
		{"no such address", Choice{Names: []string{"192.0.2.1"}}, "", "", "--iface=192.0.2.1: no interface has this address"},
		{"down", Choice{Names: []string{"eth1"}}, "", "", "--iface=eth1: eth1 is down"},
		{"a port", Choice{Names: []string{"eth2"}}, "", "", "--iface=eth2: eth2 has no address and is a port of bond0"},
		{"loopback", Choice{Names: []string{"127.0.0.1"}}, "", "", "--iface=127.0.0.1: lo is the loopback interface"},
		{"our own", Choice{Names: []string{"veth1"}}, "", "", "--iface=veth1: veth1 is part of the overlay itself"},
		{"no match", Choice{Patterns: pattern("^wlan")}, "", "", "--iface-regex=^wlan: no interface's name or address matches"},
		{"no route", Choice{CanReach: netip.MustParseAddr("203.0.113.1")}, "", "", "--iface-can-reach=203.0.113.1: there is no route to it"},
		{"a route by the overlay", Choice{CanReach: netip.MustParseAddr("172.16.78.5")}, "", "", "--iface-can-reach=172.16.78.5: flannel.1 is part of the overlay itself"},
		{"a route by what is gone", Choice{CanReach: netip.MustParseAddr("10.0.0.9")}, "", "", "the route leads to gone0, which is gone"},
		{
			"everything fails, and the default route is not asked",
			Choice{Names: []string{"eth1", "eth7"}, Patterns: pattern("^eth2$")},
			"", "",
			"--iface=eth1: eth1 is down; --iface=eth7: there is no such interface; --iface-regex=^eth2$: eth2 has no address and is a port of bond0",
		},
	} {
		d, at, err := x.choice.choose(host(), routes)
		if x.tried != "" {
			if !errors.Is(err, ErrNoUnderlay) || !strings.Contains(err.Error(), x.tried) {
				t.Errorf("%s: error %v, want %q", x.name, err, x.tried)
			}
			continue
		}
		if err != nil || d.name != x.dev || x.at != "" && at.String() != x.at || x.at == "" && at.IsValid() {
			t.Errorf("%s: %s by %s, %v, want %s by %s", x.name, d.name, at, err, x.dev, x.at)
		}
	}
	if _, _, err := (Choice{}).choose(host(), table{}); !errors.Is(err, ErrNoUnderlay) || !strings.Contains(err.Error(), "default route: there is none: name the interface with --iface") {
		t.Errorf("no default route: %v", err)
	}
}
