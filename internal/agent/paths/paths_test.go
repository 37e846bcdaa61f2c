package paths

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/kernel/pmtu"
)

// fakeNet is a network of paths that answer up to their MTU; one that is not there is silent. It counts packets.
type fakeNet struct {
	mu      sync.Mutex
	mtu     map[netip.Addr]int
	packets int
	most    int // at the same time
	now     int
}

func (n *fakeNet) set(a netip.Addr, mtu int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mtu[a] = mtu
}

func (n *fakeNet) enter(packets int) func() {
	n.mu.Lock()
	n.packets += packets
	n.now++
	n.most = max(n.most, n.now)
	n.mu.Unlock()
	return func() { n.mu.Lock(); n.now--; n.mu.Unlock() }
}

func (n *fakeNet) of(a netip.Addr) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mtu[a]
}

func (n *fakeNet) Path(ctx context.Context, to netip.Addr, ceiling int) (int, error) {
	defer n.enter(30)()
	time.Sleep(time.Second)
	if n.of(to) == 0 {
		return 0, pmtu.ErrSilent
	}
	return min(n.of(to), ceiling), ctx.Err()
}

func (n *fakeNet) Larger(_ context.Context, to netip.Addr, small, large int) int {
	defer n.enter(2)()
	time.Sleep(10 * time.Millisecond)
	switch mtu := n.of(to); {
	case mtu >= large:
		return large
	case mtu >= small:
		return small
	}
	return 0
}

// TestPathsAreFollowed: a path that becomes narrow, wider, wide again, and a host that is silent for a while.
func TestPathsAreFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "paths.json")
	b := netip.MustParseAddr("172.17.42.32")
	six := netip.MustParseAddr("2001:db8::32")
	silent := netip.MustParseAddr("172.17.42.33")
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{mtu: map[netip.Addr]int{b: 1500, six: 9000}}
		var log bytes.Buffer
		p, err := New(slog.New(slog.NewTextHandler(&log, nil)), 30*time.Second, file)
		if err != nil {
			t.Fatal(err)
		}
		f := facts.Facts{Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("2001:db8::31")}}
		peers := map[netip.Addr]string{b: "kube-node2", six: "kube-node2", silent: "kube-node3"}
		wake := make(chan struct{}, 1)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var look sync.Mutex
		go func() {
			done <- p.Run(ctx, n, func() (facts.Facts, map[netip.Addr]string, bool) {
				look.Lock()
				defer look.Unlock()
				return f, maps.Clone(peers), true
			}, loop.On(wake, loop.ByHost))
		}()
		expect := func(what string, after time.Duration, want map[netip.Addr]int, told bool) {
			t.Helper()
			for len(p.Changed) > 0 {
				<-p.Changed
			}
			time.Sleep(after)
			if got := p.Narrow(f.MTU); !maps.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
			if (len(p.Changed) > 0) != told {
				t.Errorf("%s: told %v", what, !told)
			}
		}
		expect("at first", 10*time.Second, nil, false)
		n.set(b, 1400)
		expect("narrow", time.Minute, map[netip.Addr]int{b: 1400}, true)
		expect("as before", 5*time.Minute, map[netip.Addr]int{b: 1400}, false)
		n.set(b, 1450)
		expect("a little wider, found by the full search", 15*time.Minute, map[netip.Addr]int{b: 1450}, true)
		n.set(b, 1500)
		expect("wide", time.Minute, nil, true)
		n.set(six, 1280)
		expect("IPv6", time.Minute, map[netip.Addr]int{six: 1280}, true)
		n.set(six, 0)
		expect("a host that is down keeps its path", time.Hour, map[netip.Addr]int{six: 1280}, false)
		n.set(six, 1280)
		n.set(silent, 1300)
		expect("one that was silent", time.Hour, map[netip.Addr]int{six: 1280, silent: 1300}, true)

		again, err := New(p.log, time.Minute, file)
		if err != nil || !maps.Equal(again.Narrow(1500), p.Narrow(1500)) {
			t.Errorf("after a restart: %v %v", again.Narrow(1500), err)
		}
		look.Lock()
		f.MTU, f.Dev = 1280, "eth1"
		look.Unlock()
		loop.Poke(wake)
		expect("an interface as narrow as the path", time.Minute, nil, false)
		look.Lock()
		delete(peers, silent)
		look.Unlock()
		loop.Poke(wake)
		time.Sleep(time.Second)
		if l := p.List(); len(l) != 2 || l[0].Address != b || l[0].MTU != 1280 || l[0].Narrow {
			t.Errorf("%+v", l)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), `narrower than the interface" node=kube-node2 address=172.17.42.32 mtu=1400 interface=1500`) {
			t.Error(log.String())
		}
	})
}

// TestPathsCostLittle: with thousands of peers, most of them silent, few packets are under way.
func TestPathsCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{mtu: map[netip.Addr]int{}}
		peers := map[netip.Addr]string{}
		for i := range 5000 {
			a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			peers[a] = ""
			if i%5 > 0 {
				n.mtu[a] = 1500
			}
		}
		p, err := New(slog.New(slog.DiscardHandler), 30*time.Second, filepath.Join(t.TempDir(), "paths.json"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- p.Run(ctx, n, func() (facts.Facts, map[netip.Addr]string, bool) {
				return facts.Facts{Dev: "eth0", MTU: 1500}, peers, true
			})
		}()
		time.Sleep(30 * time.Minute)
		n.mu.Lock()
		before := n.packets
		n.mu.Unlock()
		time.Sleep(10 * time.Minute)
		n.mu.Lock()
		rate := float64(n.packets-before) / 600
		n.mu.Unlock()
		stop()
		<-done
		t.Logf("%.0f packets a second, at most %d at the same time", rate, n.most)
		if n.most > probesAtOnce || rate > 250 {
			t.Errorf("%.0f packets a second, %d at the same time", rate, n.most)
		}
		known := 0
		for _, s := range p.List() {
			if s.MTU == 1500 {
				known++
			}
		}
		if known != 4000 {
			t.Errorf("%d paths are known", known)
		}
	})
}

// TestPeersToSendTo: neither the node itself nor an address that nobody can send to from here.
func TestPeersToSendTo(t *testing.T) {
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.28.0/24"), PublicIP: netip.MustParseAddr("172.17.42.31")}
	f := facts.Facts{Addrs: []netip.Addr{netip.MustParseAddr("172.17.42.31")}}
	all := []api.Lease{
		own,
		{Subnet: netip.MustParsePrefix("172.16.78.0/24"), PublicIP: netip.MustParseAddr("172.17.42.32")},
		{Subnet: netip.MustParsePrefix("172.16.79.0/24"), PublicIP: netip.MustParseAddr("172.17.42.33")},
		{Subnet: netip.MustParsePrefix("172.16.99.0/24"), PublicIP: netip.IPv4Unspecified(), PublicIPv6: netip.MustParseAddr("2001:db8::1")},
	}
	if peers := Peers(f, own, all); len(peers) != 2 {
		t.Errorf("%v", peers)
	}
}
