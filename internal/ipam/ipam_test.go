package ipam_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weft/internal/ipam"
)

func TestNext(t *testing.T) {
	ip := netip.MustParseAddr
	for _, c := range []struct {
		subnet, last string
		used         []string
		want         string
	}{
		{"172.16.28.0/24", "", nil, "172.16.28.2"},
		{"172.16.28.0/24", "172.16.28.4", nil, "172.16.28.5"},
		{"172.16.28.0/24", "172.16.28.4", []string{"172.16.28.5", "172.16.28.6"}, "172.16.28.7"},
		{"172.16.28.0/24", "172.16.28.254", nil, "172.16.28.2"},
		{"172.16.28.0/24", "172.16.28.253", []string{"172.16.28.254", "172.16.28.2"}, "172.16.28.3"},
		{"172.16.28.0/24", "10.0.0.9", nil, "172.16.28.2"},
		{"172.16.28.77/24", "172.16.28.0", nil, "172.16.28.2"},
		{"255.255.255.0/24", "255.255.255.254", nil, "255.255.255.2"},
		{"10.0.0.0/30", "10.0.0.2", nil, "10.0.0.2"},
		{"fd00::/64", "", nil, "fd00::2"},
		{"fd00::/64", "fd00::ffff", []string{"fd00::1:0"}, "fd00::1:1"},
		{"fd00::/126", "fd00::3", nil, "fd00::2"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", "", nil, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"},
	} {
		var last netip.Addr
		if c.last != "" {
			last = ip(c.last)
		}
		used := map[netip.Addr]bool{}
		for _, u := range c.used {
			used[ip(u)] = true
		}
		got, err := ipam.Next(netip.MustParsePrefix(c.subnet), last, used)
		if err != nil || got != ip(c.want) {
			t.Errorf("Next(%s, %s, %v) = %s, %v, want %s", c.subnet, c.last, c.used, got, err, c.want)
		}
	}
}

// TestNextUsesAll fills a subnet up: each address is given out once, none of those that are never given out, and then it is full.
func TestNextUsesAll(t *testing.T) {
	for _, subnet := range []string{"172.16.28.0/24", "10.0.0.0/30", "fd00::/120"} {
		p := netip.MustParsePrefix(subnet)
		want := 1<<(p.Addr().BitLen()-p.Bits()) - 2
		if p.Addr().Is4() {
			want--
		}
		used := map[netip.Addr]bool{}
		last := netip.Addr{}
		for range want {
			a, err := ipam.Next(p, last, used)
			if err != nil {
				t.Fatalf("%s after %d: %v", subnet, len(used), err)
			}
			if used[a] || !p.Contains(a) || a == p.Addr() || a == p.Addr().Next() {
				t.Fatalf("%s: gave out %s", subnet, a)
			}
			used[a], last = true, a
		}
		if a, err := ipam.Next(p, last, used); !errors.Is(err, ipam.ErrFull) {
			t.Errorf("%s: %s, %v when full", subnet, a, err)
		}
		// What is given up is found again wherever the last one was.
		for a := range used {
			delete(used, a)
			if got, err := ipam.Next(p, last, used); err != nil || got != a {
				t.Errorf("%s: %s, %v, want the free %s", subnet, got, err, a)
			}
			used[a] = true
			if rand.IntN(10) == 0 {
				break
			}
		}
	}
}

func TestNextRefuses(t *testing.T) {
	for _, p := range []netip.Prefix{
		{}, netip.MustParsePrefix("10.0.0.0/31"), netip.MustParsePrefix("10.0.0.0/32"), netip.MustParsePrefix("fd00::/128"),
	} {
		if a, err := ipam.Next(p, netip.Addr{}, nil); err == nil {
			t.Errorf("Next(%s) = %s", p, a)
		}
	}
}
