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
	}}}}, "n1", lease.AnnotationPrefix)
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
