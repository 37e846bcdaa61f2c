package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
)

func TestUnderlayFlags(t *testing.T) {
	good := UnderlayConfig{
		Ifaces: []string{"eth0", "2001:db8::31", "fe80:0:0:0:aaaa:bbbb:cccc:dddd"}, Patterns: []string{`^eth\d{1,2}$`, `^172\.17\.`},
		CanReach: "172.17.42.1", PublicIP: "203.0.113.1", PublicIPv6: "2001:db8::1",
	}
	if err := good.parse(); err != nil {
		t.Fatal(err)
	}
	if len(good.choice.Names) != 3 || len(good.choice.Patterns) != 2 || good.choice.CanReach.String() != "172.17.42.1" ||
		good.publicIP.String() != "203.0.113.1" || good.publicV6.String() != "2001:db8::1" {
		t.Errorf("%+v", good)
	}
	for want, c := range map[string]UnderlayConfig{
		"--iface=: want an interface's name":                                     {Ifaces: []string{"eth0", ""}},
		"--iface=a-name-that-is-too-long: want an interface's name":              {Ifaces: []string{"a-name-that-is-too-long"}},
		"--iface-regex=eth(: want a regular expression such as ^eth: error":      {Patterns: []string{"eth("}},
		"--iface-regex=: want a regular expression such as ^eth: it is empty":    {Patterns: []string{""}},
		"--iface-can-reach=gateway: want the address of another host":            {CanReach: "gateway"},
		"--iface-can-reach=127.0.0.1: want the address of another host":          {CanReach: "127.0.0.1"},
		"--public-ip=eth0: want an IPv4 address":                                 {PublicIP: "eth0"},
		"--public-ip=2001:db8::1: want an IPv4 address like 172.17.42.31; the ":  {PublicIP: "2001:db8::1"},
		"--public-ip=0.0.0.0: no other node can send to it":                      {PublicIP: "0.0.0.0"},
		"--public-ipv6=172.17.42.31: want an IPv6 address like 2001:db8::31; th": {PublicIPv6: "172.17.42.31"},
		"--public-ipv6=fe80::1%eth0: want an IPv6 address":                       {PublicIPv6: "fe80::1%eth0"},
		"--public-ipv6=::1: no other node can send to it":                        {PublicIPv6: "::1"},
	} {
		if err := c.parse(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "%!") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestPublished: what the node publishes is the annotation to overwrite, else the address asked for, else the interface's.
func TestPublished(t *testing.T) {
	own, flag := netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("203.0.113.1")
	over, six := netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8::1")
	for _, x := range []struct {
		p        public
		v4, json netip.Addr
	}{
		{public{}, own, netip.Addr{}},
		{public{use: [2]netip.Addr{own}}, own, netip.Addr{}},
		{public{use: [2]netip.Addr{flag, six}}, flag, flag},
		{public{use: [2]netip.Addr{flag}, publish: [2]netip.Addr{over}}, over, over},
	} {
		f := facts.Facts{Addrs: []netip.Addr{own}}
		x.p.into(&f)
		if f.Public(false) != x.v4 || f.PublicIP != x.json || f.Public(true) != x.p.use[1] {
			t.Errorf("%+v: %+v", x.p, f)
		}
		if !f.Holds(x.v4) || f.Holds(netip.Addr{}) {
			t.Errorf("%+v: does not hold its address", x.p)
		}
	}
	annotated, err := ownPublic(api.Snapshot{Nodes: []api.Node{{Name: "other"}, {Name: "n1", Annotations: map[string]string{
		lease.AnnotationPrefix + "public-ip-overwrite": "203.0.113.2", lease.AnnotationPrefix + "node-public-ip": "203.0.113.1",
	}}}}, "n1")
	if err != nil || annotated.Publish != over || annotated.Use != flag {
		t.Errorf("%+v %v", annotated, err)
	}
}

// TestReporting: the same trouble is said once a minute, new trouble at most once a second.
func TestReporting(t *testing.T) {
	var b bytes.Buffer
	r := reporting{log: slog.New(slog.NewTextHandler(&b, nil))}
	at := time.Unix(1000, 0)
	for i, x := range []struct {
		after time.Duration
		err   string
		said  int
	}{{0, "a", 1}, {time.Second, "a", 1}, {time.Second, "b", 2}, {time.Millisecond, "c", 2}, {2 * time.Second, "c", 3}, {underlayEvery, "c", 4}} {
		at = at.Add(x.after)
		r.say(at, errors.New(x.err), "waiting")
		if n := strings.Count(b.String(), "\n"); n != x.said {
			t.Errorf("%d: %d lines, want %d", i, n, x.said)
		}
	}
}
