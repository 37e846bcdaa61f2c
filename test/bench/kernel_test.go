package bench

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
)

// table looks at the kernel's routes, neighbours and forwarding entries of this namespace.
type table struct {
	tb   testing.TB
	conn *wire.Conn
}

func openTable(tb testing.TB) *table {
	tb.Helper()
	c, err := wire.Dial()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return &table{tb, c}
}

// gateway is the gateway the kernel sends by to the address; invalid when it is reached otherwise.
func (t *table) gateway(a netip.Addr) (via netip.Addr) {
	t.tb.Helper()
	var b wire.Buffer
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1] = unix.AF_INET, 32
	b.Begin(unix.RTM_GETROUTE, 0, header)
	b.Addr(unix.RTA_DST, a)
	b.End()
	m, err := t.conn.Get(&b)
	if wire.IsErrno(err, unix.ENETUNREACH, unix.EHOSTUNREACH) {
		return via
	}
	if err != nil {
		t.tb.Fatal(err)
	}
	for typ, v := range wire.Attrs(m.Data[unix.SizeofRtMsg:]) {
		if typ == unix.RTA_GATEWAY {
			via = wire.Addr(v)
		}
	}
	return via
}

// has reports whether the kernel sends to the ith lease's subnet by the overlay.
func (t *table) has(i int) bool { return t.gateway(subnetOf(i).Addr().Next()) == subnetOf(i).Addr() }

// routes counts the routes to single subnets of the network.
func (t *table) routes() int {
	t.tb.Helper()
	var b wire.Buffer
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = unix.AF_INET
	b.Begin(unix.RTM_GETROUTE, 0, header)
	b.U32(unix.RTA_TABLE, unix.RT_TABLE_MAIN)
	b.End()
	return t.count(&b, func(m wire.Message) bool { return m.Data[1] == 24 })
}

// entries counts permanent neighbours (AF_INET) or forwarding entries (AF_BRIDGE).
func (t *table) entries(family byte) int {
	t.tb.Helper()
	var b wire.Buffer
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = family
	b.Begin(unix.RTM_GETNEIGH, 0, header)
	b.End()
	return t.count(&b, func(m wire.Message) bool { return wire.U16(m.Data[8:])&unix.NUD_PERMANENT != 0 })
}

func (t *table) count(b *wire.Buffer, want func(wire.Message) bool) int {
	t.tb.Helper()
	msgs, err := t.conn.Dump(b)
	if err != nil {
		t.tb.Fatal(err)
	}
	n := 0
	for _, m := range msgs {
		if want(m) {
			n++
		}
	}
	return n
}

// full waits until the routes to n leases are there and returns the time of the look that found them all.
func (t *table) full(n int, limit time.Duration) time.Time {
	t.tb.Helper()
	end := time.Now().Add(limit)
	next := 0
	for {
		at := time.Now()
		if at.After(end) {
			t.tb.Fatalf("%d of %d routes after %s", t.routes(), n, limit)
		}
		// A few lookups cost nothing; only when they all succeed the whole table is read.
		for next < n && t.has(next) {
			next += max(1, n/50)
		}
		if next >= n && t.routes() >= n {
			return at
		}
		time.Sleep(time.Millisecond)
	}
}

// appears calls ready, which returns when the clock shall begin, and returns how long after that the kernel told of the ith lease's route.
func (t *table) appears(i int, ready func() time.Time) time.Duration {
	t.tb.Helper()
	w, err := wire.Subscribe(0, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		t.tb.Fatal(err)
	}
	defer w.Close()
	seen := make(chan time.Time, 1)
	go func() {
		defer close(seen)
		for {
			msgs, err := w.Receive()
			at := time.Now()
			if err != nil {
				return
			}
			for _, m := range msgs {
				if m.Type == unix.RTM_NEWROUTE && routeTo(m) == subnetOf(i).Addr() {
					seen <- at
					return
				}
			}
		}
	}()
	from := ready()
	select {
	case at, ok := <-seen:
		if ok {
			return at.Sub(from)
		}
	case <-time.After(30 * time.Second):
	}
	t.tb.Fatalf("the route of lease %d did not come", i)
	return 0
}

func routeTo(m wire.Message) (dst netip.Addr) {
	if len(m.Data) < unix.SizeofRtMsg {
		return dst
	}
	for typ, v := range wire.Attrs(m.Data[unix.SizeofRtMsg:]) {
		if typ == unix.RTA_DST {
			dst = wire.Addr(v)
		}
	}
	return dst
}
