package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/lab"
	"weft/internal/netstate"
)

const subnets = "/coreos.com/network/subnets/"

// TestPrograms kills and stops agents and the store of the leases, restores it, cuts hosts off, and writes nonsense into it.
func TestPrograms(t *testing.T) {
	s := begin(t, "nftables", "routed")
	type event struct {
		name string
		do   func()
	}
	var order []event
	for range max(1, *rounds/4) {
		for _, e := range []event{
			{"agent killed", s.agentKilled},
			{"agent stopped", s.agentStopped},
			{"agent dead", s.injuredWhileDead},
			{"etcd stopped", s.storeStopped},
			{"etcd restored", s.storeRestored},
			{"etcd silent", s.storeSilent},
			{"etcd vanished", s.storeVanished},
			{"partition", s.partition},
			{"underlay", s.underlayDown},
			{"lease added", s.leaseAdded},
			{"lease malformed", s.leaseMalformed},
			{"lease deleted", s.leaseDeleted},
			{"leases deleted", s.leasesDeleted},
			{"fight", s.routeFight},
		} {
			if strings.Contains(e.name, *only) {
				order = append(order, e)
			}
		}
	}
	s.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, e := range order {
		e.do()
		s.whole(e.name)
	}
	t.Logf("what happened to programs (until all is as it is to be again):\n%s", s.table)
	s.table.document(t, "programs")
	if resets, echoes := s.tr.broken(); resets > 0 {
		t.Errorf("the TCP connection broke %d times in %d lines: %v", resets, echoes, s.tr.why)
	}
}

// whole waits until every node is as at the beginning, which may take a moment longer than until packets flow.
func (s *story) whole(after string) {
	s.t.Helper()
	begun, what := time.Now(), ""
	defer func() {
		if d := time.Since(begun); d > s.still.Allow(5*time.Second, begun) {
			s.t.Errorf("after %s all was as before only %s later, the last: %s", after, d, what)
		}
	}()
	for _, n := range s.nodes {
		s.eventually("all is as before on "+n.name, 60*time.Second, func() error {
			if now := n.host.differs(s.t.Context()) + n.inside.differs(s.t.Context()); now != "" {
				what = n.name + ": " + now
				return errors.New(now)
			}
			return nil
		})
	}
}

// during measures what happens from begun until check holds. Packets may only get lost where allowed.
func (s *story) during(kind string, begun time.Time, since time.Time, resets int, allowed bool, check func() error) {
	s.t.Helper()
	s.eventually(kind, 90*time.Second, check)
	took := time.Since(since)
	end := time.Now().Add(-40 * time.Millisecond)
	lost := s.measure(kind, begun, took, resets)
	for late := time.Now().Add(2 * time.Second); !allowed && lost > 0 && time.Now().Before(late); { // on a busy machine packets are read late
		s.wait(50 * time.Millisecond)
		lost, _ = s.tr.lost(begun, end)
	}
	if lost > 0 && !allowed {
		s.t.Errorf("%s: %d packets lost", kind, lost)
	}
}

func (s *story) signal(n *node, sig syscall.Signal) {
	s.t.Helper()
	if err := s.Signal(s.t.Context(), n.name, lab.Agent, sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) start(n *node) {
	s.t.Helper()
	if err := s.Start(s.t.Context(), n.name, lab.Agent); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) ready(n *node) func() error {
	return func() error {
		_, err := s.sh(n.name, `weft status -o json | grep -q '"converged":true'`)
		return err
	}
}

func (s *story) resets() int {
	resets, _ := s.tr.broken()
	return resets
}

func (s *story) agentKilled() {
	n, resets, begun := s.one(), s.resets(), time.Now()
	s.signal(n, syscall.SIGKILL)
	s.wait(300 * time.Millisecond)
	since := time.Now()
	s.start(n)
	s.during("agent killed, until the next one has converged", begun, since, resets, false, s.ready(n))
}

func (s *story) agentStopped() {
	n, resets, begun := s.one(), s.resets(), time.Now()
	s.signal(n, syscall.SIGSTOP)
	s.must(n.name, "ip route del "+n.peers[0]+"/24")
	s.wait(time.Second)
	since := time.Now()
	s.signal(n, syscall.SIGCONT)
	s.during("agent stopped for 1 s with a route deleted, from SIGCONT", begun, since, resets, true, s.has(n.peers[0]+"/24", n))
}

func (s *story) injuredWhileDead() {
	n, resets, begun := s.one(), s.resets(), time.Now()
	s.signal(n, syscall.SIGKILL)
	s.must(n.name, "ip link del flannel.1; nft delete table inet weft; "+n.inPod+"ip route del default")
	since := time.Now()
	s.start(n)
	s.during("VTEP, table and pod's route deleted with the agent dead, from its start", begun, since, resets, true, func() error {
		if what := n.host.differs(s.t.Context()) + n.inside.differs(s.t.Context()); what != "" {
			return errors.New(what)
		}
		return nil
	})
}

func (s *story) storeStopped() {
	resets, begun := s.resets(), time.Now()
	if err := s.Stop(s.t.Context(), store, etcd); err != nil {
		s.t.Fatal(err)
	}
	s.wait(time.Second)
	s.startEtcd(s.dir())
	s.newLease("etcd stopped for 1 s, until a lease written then is used", begun, resets)
}

func (s *story) storeRestored() {
	s.must(store, "rm -f /root/snap; ETCDCTL_API=3 etcdctl snapshot save /root/snap")
	for i := range 20 { // what the restored one does not know; a lease would stay for the minute in which its holder may put it back
		if _, err := s.etcd.Put(s.t.Context(), fmt.Sprint("other/", i), "x"); err != nil {
			s.t.Fatal(err)
		}
	}
	resets, begun := s.resets(), time.Now()
	if err := s.Stop(s.t.Context(), store, etcd); err != nil {
		s.t.Fatal(err)
	}
	s.dirs++
	s.must(store, "ETCDCTL_API=3 etcdctl snapshot restore /root/snap --name=store --data-dir="+s.dir()+
		" --initial-cluster=store=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380")
	s.startEtcd(s.dir())
	s.newLease("etcd restored to an older revision, until a lease written then is used", begun, resets)
}

func (s *story) dir() string { return fmt.Sprintf("/var/lib/etcd%d", s.dirs) }

// silence drops what the store's host sends and gets on the port without a word to either side.
const silence = "nft add table inet silence; nft add chain inet silence in '{ type filter hook input priority -400; }'; " +
	"nft add chain inet silence out '{ type filter hook output priority -400; }'; "

func (s *story) storeSilent() {
	resets, begun := s.resets(), time.Now()
	s.must(store, silence+"nft add rule inet silence in iifname eth0 tcp dport 2379 drop; nft add rule inet silence out oifname eth0 tcp sport 2379 drop")
	s.wait(3 * time.Second)
	s.must(store, "nft delete table inet silence")
	s.newLease("etcd silent for 3 s, until a lease written then is used", begun, resets)
}

func (s *story) storeVanished() {
	resets, begun := s.resets(), time.Now()
	ports := s.must(store, "ss -Htn 'sport = :2379' | grep -v 127.0.0.1 | awk '{print $5}' | sed 's/.*://' | sort -u | paste -sd,")
	s.must(store, silence+"nft add rule inet silence in iifname eth0 tcp dport 2379 tcp sport { "+ports+" } drop; "+
		"nft add rule inet silence out oifname eth0 tcp sport 2379 tcp dport { "+ports+" } drop")
	s.newLease("connections to etcd dead without FIN, until a lease written then is used", begun, resets)
	s.must(store, "nft delete table inet silence")
}

func (s *story) partition() {
	n, resets, begun := s.one(), s.resets(), time.Now()
	s.must(n.name, silence+"nft add rule inet silence in iifname eth0 drop; nft add rule inet silence out oifname eth0 drop")
	s.wait(2 * time.Second)
	s.must(n.name, "nft delete table inet silence")
	since := time.Now()
	s.during("node cut off for 2 s, from its end", begun, since, resets, true, func() error { return s.tr.settled(20 * time.Second) })
}

func (s *story) underlayDown() {
	n, resets, begun := s.one(), s.resets(), time.Now()
	s.must(n.name, "ip link set eth0 down; sleep 0.3; ip link set eth0 up; ip route replace default via 172.17.42.1")
	since := time.Now()
	s.during("eth0 down for 300 ms, from its end", begun, since, resets, true, func() error { return s.tr.settled(20 * time.Second) })
}

func (s *story) leaseAdded() { s.newLease("a lease added", time.Now(), s.resets()) }

func (s *story) leaseMalformed() {
	resets, begun := s.resets(), time.Now()
	bad := []string{`{`, `{"PublicIP":"no address"}`, `{"PublicIP":"172.17.42.250","BackendType":"vxlan","BackendData":{"VtepMAC":"zz"}}`, strings.Repeat("x", 100000)}
	for i, value := range bad {
		s.put(fmt.Sprintf("172.19.%d.0-24", i), value)
	}
	s.put("8.8.8.0-24", lease(251))
	s.newLease("a lease added after malformed ones", begun, resets)
	if _, err := s.etcd.Delete(s.t.Context(), subnets+"172.19.", clientv3.WithPrefix()); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.etcd.Delete(s.t.Context(), subnets+"8.8.8.0-24"); err != nil {
		s.t.Fatal(err)
	}
}

// lease is a value of a lease that no node of the lab holds.
func lease(i int) string {
	return fmt.Sprintf(`{"PublicIP":"172.17.43.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:01:%02x"}}`, i, i)
}

func (s *story) put(subnet, value string) {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer stop()
	if _, err := s.etcd.Put(ctx, subnets+subnet, value); err != nil {
		s.t.Fatalf("write lease %s: %v", subnet, err)
	}
}

// newLease writes a lease and measures when it is in the kernel of every node. Then it goes again.
func (s *story) newLease(kind string, begun time.Time, resets int) {
	s.t.Helper()
	i := 1 + s.rnd.IntN(200)
	key, route := fmt.Sprintf("172.20.%d.0-24", i), fmt.Sprintf("172.20.%d.0/24", i)
	s.put(key, lease(i))
	since := time.Now()
	s.during(kind, begun, since, resets, false, s.has(route, s.nodes...))
	if _, err := s.etcd.Delete(s.t.Context(), subnets+key); err != nil {
		s.t.Fatal(err)
	}
}

// has is a check that the nodes have a route of weft's.
func (s *story) has(route string, nodes ...*node) func() error {
	id := netstate.IDOf(netstate.Route{Dst: netip.MustParsePrefix(route)})
	return func() error {
		for _, n := range nodes {
			state, err := n.host.net.Read(s.t.Context(), n.host.want)
			if err != nil {
				return err
			}
			if _, ok := state.Get(id); !ok {
				return fmt.Errorf("%s has no route %s", n.name, route)
			}
		}
		return nil
	}
}

func (s *story) leaseDeleted() {
	n := s.one()
	s.deleted("own lease deleted, until it is there again", n)
}

func (s *story) leasesDeleted() {
	s.deleted("all leases deleted, until they are there again", s.nodes...)
}

// deleted deletes the nodes' leases in one transaction.
func (s *story) deleted(kind string, nodes ...*node) {
	s.t.Helper()
	ctx := s.t.Context()
	var ops []clientv3.Op
	for _, n := range nodes {
		ops = append(ops, clientv3.OpDelete(s.keyOf(n)))
	}
	resets, begun := s.resets(), time.Now()
	if _, err := s.etcd.Txn(ctx).Then(ops...).Commit(); err != nil {
		s.t.Fatal(err)
	}
	s.during(kind, begun, begun, resets, true, func() error {
		for _, n := range nodes {
			r, err := s.etcd.Get(ctx, s.keyOf(n))
			if err != nil || len(r.Kvs) == 0 || !strings.Contains(string(r.Kvs[0].Value), n.address) {
				return errors.Join(err, errors.New("no lease of "+n.name))
			}
		}
		return s.asBefore()
	})
}

func (s *story) keyOf(n *node) string {
	p, err := n.pod.ip.Prefix(24)
	if err != nil {
		s.t.Fatal(err)
	}
	return subnets + strings.ReplaceAll(p.String(), "/", "-")
}

// asBefore says what is not as before.
func (s *story) asBefore() error {
	for _, n := range s.nodes {
		if what := n.host.differs(s.t.Context()); what != "" {
			return errors.New(n.name + ": " + what)
		}
	}
	return nil
}

func (s *story) wait(d time.Duration) {
	select {
	case <-s.t.Context().Done():
	case <-time.After(d):
	}
}
