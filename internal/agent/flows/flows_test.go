package flows

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/kernel/conntrack"
	"weft/internal/proxy"
)

// fakeFlows is a connection tracking table in memory.
type fakeFlows struct {
	mu    sync.Mutex
	flows []conntrack.Flow
	asked [][]netip.AddrPort // for IPv4
	takes time.Duration      // a list
	dear  bool               // a walk for each destination
}

func (f *fakeFlows) Walks(q conntrack.Query) int {
	if f.dear {
		return max(1, len(q.To))
	}
	return 1
}

func (f *fakeFlows) List(q conntrack.Query) ([]conntrack.Flow, error) {
	to := q.To
	if q.Family != unix.AF_INET {
		return nil, nil
	}
	time.Sleep(f.takes) // without the lock: the time of a bubble of synctest stands still while somebody waits for a lock
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, to)
	return slices.DeleteFunc(slices.Clone(f.flows), func(x conntrack.Flow) bool {
		return len(to) > 0 && !slices.ContainsFunc(to, func(a netip.AddrPort) bool {
			return a.Port() == x.To.Port() && (!a.Addr().IsValid() || a.Addr() == x.To.Addr())
		})
	}), nil
}

func (f *fakeFlows) Delete(gone []conntrack.Flow) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := func(a, b conntrack.Flow) bool { return a.From == b.From && a.To == b.To && a.Answerer == b.Answerer }
	f.flows = slices.DeleteFunc(f.flows, func(x conntrack.Flow) bool {
		return slices.ContainsFunc(gone, func(g conntrack.Flow) bool { return same(x, g) })
	})
	return len(gone), nil
}

// left are the answerers of the flows that are left, to be awaited.
func (f *fakeFlows) left() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, x := range f.flows {
		out = append(out, x.Answerer.String())
	}
	return out
}

func flow(to, answerer string) conntrack.Flow {
	return conntrack.Flow{
		From: netip.MustParseAddrPort("172.16.28.9:40000"), To: netip.MustParseAddrPort(to), Answerer: netip.MustParseAddrPort(answerer),
	}
}

func udpService(endpoints ...string) api.ServicePort {
	s := agenttest.Nginx(endpoints...)
	s.Protocol = api.UDP
	return s
}

// TestFlowsOnLoopback: a flow to a NodePort on loopback that no rule translates is the relay's, or a program's; it is none that went astray.
func TestFlowsOnLoopback(t *testing.T) {
	s := udpService("172.16.78.9:53")
	s.NodePort = 30053
	for _, mode := range []facts.ProxyMode{facts.NFTables, facts.IPTables, facts.Userspace} {
		k := New(slog.New(slog.DiscardHandler), &fakeFlows{})
		k.update(agenttest.Walkthrough(mode), []api.ServicePort{s}, map[string]uint16{"default/my-nginx-service: UDP": 61000})
		all := []conntrack.Flow{flow("127.0.0.1:30053", "127.0.0.1:30053"), flow("127.0.0.1:30053", "172.16.78.9:53"), flow("127.0.0.1:30053", "172.16.9.9:53")}
		stale := len(k.stale(all, k.take(), map[netip.Addr]bool{}))
		if want := map[facts.ProxyMode]int{facts.NFTables: 1, facts.IPTables: 1, facts.Userspace: 2}[mode]; stale != want {
			t.Errorf("mode %s: %d flows are stale, want %d", mode, stale, want)
		}
	}
}

func runFlows(t *testing.T, table *fakeFlows) *Keeper {
	t.Helper()
	k := New(slog.New(slog.DiscardHandler), table)
	begun := time.Now()
	k.spent = func() time.Duration { return time.Since(begun) } // a list that sleeps takes no processor time
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return k
}

func (f *fakeFlows) await(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !slices.Equal(f.left(), want) {
		if time.Now().After(deadline) {
			t.Fatalf("left %v, want %v", f.left(), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestFlowsFollowEndpoints takes endpoints from a service and removes it; flows of others stay.
func TestFlowsFollowEndpoints(t *testing.T) {
	const vip = "10.254.247.121:8080"
	table := &fakeFlows{flows: []conntrack.Flow{
		flow(vip, "172.16.1.2:80"), flow(vip, "172.16.2.2:80"), flow(vip, "172.16.9.9:80"), flow("10.254.7.7:53", "172.16.3.3:53"),
		flow("192.0.2.1:53", "192.0.2.1:53"), flow("172.16.1.2:80", "172.16.1.2:80"),
	}}
	k := runFlows(t, table)
	f := agenttest.Walkthrough(facts.NFTables)
	k.update(f, []api.ServicePort{udpService("172.16.1.2:80", "172.16.2.2:80")}, nil)
	// Gone: the endpoint nobody has, and the flow of a service that went while no agent ran.
	table.await(t, "172.16.1.2:80", "172.16.2.2:80", "192.0.2.1:53", "172.16.1.2:80")
	k.update(f, []api.ServicePort{udpService("172.16.2.2:80")}, nil)
	table.await(t, "172.16.2.2:80", "192.0.2.1:53", "172.16.1.2:80")
	k.update(f, nil, nil)
	table.await(t, "192.0.2.1:53", "172.16.1.2:80")
}

// TestFlowsAreAskedFor: a change of one service asks for the flows to that service alone, in its family alone.
func TestFlowsAreAskedFor(t *testing.T) {
	const vip = "10.254.247.121:8080"
	table := &fakeFlows{}
	k := New(slog.New(slog.DiscardHandler), table)
	f := agenttest.Walkthrough(facts.NFTables)
	for i, c := range []struct{ endpoint, want string }{{"172.16.1.2:80", "[]"}, {"172.16.1.3:80", "[" + vip + "]"}} {
		k.update(f, []api.ServicePort{udpService(c.endpoint)}, nil)
		due := k.take()
		if _, err := k.clean(due); err != nil || len(table.asked) != i+1 || fmt.Sprint(table.asked[i]) != c.want {
			t.Errorf("asked for %v (%v), want the last to be %s", table.asked, err, c.want)
		}
		if to, some := due.destinations(unix.AF_INET6); some != (i == 0) {
			t.Errorf("IPv6: %v %v", to, some)
		}
	}
}

// TestFlowsInAStorm: changes without end share looks, each leaves room for others, and all are looked at a second time before the end.
func TestFlowsInAStorm(t *testing.T) { synctest.Test(t, testFlowsInAStorm) }

func testFlowsInAStorm(t *testing.T) {
	table := &fakeFlows{takes: 20 * time.Millisecond}
	k := runFlows(t, table)
	f := agenttest.Walkthrough(facts.NFTables)
	begun := time.Now()
	for i := 0; time.Since(begun) < 3*secondLook; i++ {
		k.update(f, []api.ServicePort{udpService(fmt.Sprintf("172.16.1.%d:80", 1+i%200))}, nil)
		time.Sleep(time.Millisecond)
	}
	took := time.Since(begun)
	table.mu.Lock()
	defer table.mu.Unlock()
	if n := time.Duration(len(table.asked)); n < 5 || (n-1)*table.takes*lookShare > took+2*lookBurst {
		t.Errorf("%d looks of %s each in %s", n, table.takes, took)
	}
	// The first look and its second are for everything.
	if n := len(slices.DeleteFunc(slices.Clone(table.asked), func(to []netip.AddrPort) bool { return len(to) > 0 })); n != 2 {
		t.Errorf("%d looks at everything: the second one waits for the end of all changes", n)
	}
}

// TestSecondLooks: each change is looked at again after a while, along with first looks where all of that is one walk, else one at a time.
func TestSecondLooks(t *testing.T) {
	at := func(ports ...uint16) look {
		l := look{touched: map[proxy.Frontend]bool{}}
		for _, p := range ports {
			l.touched[proxy.Frontend{Addr: netip.MustParseAddr("10.254.0.1"), Port: p}] = true
		}
		return l
	}
	for _, c := range []struct {
		dear bool
		// How many each step looks at: what changed first (a 0 is the timer), and when the timer shall run next.
		want []int
		wait []time.Duration
	}{
		{false, []int{1, 0, 2, 0, 1}, []time.Duration{0, secondLook, 0, secondLook, -1}},
		{true, []int{1, 0, 1, 1, 1}, []time.Duration{0, secondLook, 0, secondLook, -1}},
	} {
		table := &fakeFlows{dear: c.dear}
		var s second
		for i, change := range []uint16{1, 0, 2, 0, 0} {
			due, wait := look{}, time.Duration(0)
			if change > 0 {
				due = s.with(at(change), table)
			} else {
				due, wait = s.share(table)
			}
			if len(due.touched) != c.want[i] || wait != c.wait[i] {
				t.Errorf("dear %v, step %d: %v, then in %s; want %d, %s", c.dear, i, due.touched, wait, c.want[i], c.wait[i])
			}
		}
		if !s.empty() {
			t.Errorf("dear %v: left %v", c.dear, s)
		}
	}
	s := second{older: at(1, 2, 3)}
	for i, want := range []time.Duration{0, 0, -1} {
		if due, wait := s.share(&fakeFlows{dear: true}); len(due.touched) != 1 || wait != want {
			t.Errorf("step %d: %v, then in %s", i, due.touched, wait)
		}
	}
}

// TestFlowsAfterModeSwitch finds flows that lead to the relay of the mode before.
func TestFlowsAfterModeSwitch(t *testing.T) {
	const vip = "10.254.247.121:8080"
	table := &fakeFlows{flows: []conntrack.Flow{flow(vip, "127.0.0.1:61000"), flow(vip, "172.16.1.2:80")}}
	k := runFlows(t, table)
	services := []api.ServicePort{udpService("172.16.1.2:80")}
	l := "default/my-nginx-service: UDP"
	k.update(agenttest.Walkthrough(facts.Userspace), services, map[string]uint16{l: 61000})
	table.await(t, "127.0.0.1:61000", "172.16.1.2:80") // the endpoint serves: what leads there goes on
	k.update(agenttest.Walkthrough(facts.NFTables), services, map[string]uint16{l: 61000})
	table.await(t, "127.0.0.1:61000", "172.16.1.2:80") // the relay's listener is still open
	k.update(agenttest.Walkthrough(facts.NFTables), services, nil)
	table.await(t, "172.16.1.2:80")
}

// TestFlowsOfRulesThatAreNotKnownYet: between the rules and what is known of them flows may lead to a new endpoint.
func TestFlowsOfRulesThatAreNotKnownYet(t *testing.T) {
	const vip = "10.254.247.121:8080"
	table := &fakeFlows{}
	k := New(slog.New(slog.DiscardHandler), table)
	f := agenttest.Walkthrough(facts.NFTables)
	update := func(endpoints ...string) {
		k.Follow(f, api.Snapshot{Services: []api.ServicePort{udpService(endpoints...)}}, nil)
	}
	update("172.16.1.2:80")
	due := k.take()
	k.Expect()
	table.flows = []conntrack.Flow{flow(vip, "172.16.1.3:80"), flow(vip, "172.16.9.9:80")}
	done := make(chan int)
	go func() {
		n, err := k.clean(due)
		if err != nil {
			t.Error(err)
		}
		done <- n
	}()
	select {
	case n := <-done:
		t.Fatalf("%d flows were deleted by rules that are no more", n)
	case <-time.After(100 * time.Millisecond):
	}
	update("172.16.1.2:80", "172.16.1.3:80")
	if n := <-done; n != 1 {
		t.Errorf("%d flows were deleted, want the one to nobody", n)
	}
	table.await(t, "172.16.1.3:80")
}

// TestFlowsAreNotListedForNothing checks that a change of TCP services costs no look at the table.
func TestFlowsAreNotListedForNothing(t *testing.T) {
	k := New(slog.New(slog.DiscardHandler), &fakeFlows{})
	f := agenttest.Walkthrough(facts.NFTables)
	k.update(f, []api.ServicePort{agenttest.Nginx("172.16.1.2:80")}, nil)
	<-k.wake // the first look is for what an earlier run left
	k.take()
	k.update(f, []api.ServicePort{agenttest.Nginx("172.16.1.3:80")}, nil)
	if due := k.take(); len(due.touched) > 0 || due.orphans || len(k.wake) > 0 {
		t.Errorf("looks for %v", due)
	}
}
