package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

var (
	racers  = flag.Int("racers", 20, "how many agents race for leases, at most 63")
	raceFor = flag.Int("race-seconds", 15, "how long they are disturbed")
)

// spare is how many subnets there are more than agents.
const spare = 2

// race is a lab of agents without the API, an etcd, and its history as it happened.
type race struct {
	*lab.Lab
	t    *testing.T
	rnd  *rand.Rand
	etcd *clientv3.Client

	mu      sync.Mutex
	holders map[netip.Prefix]netip.Addr
	changes int
	wrong   []string
}

// TestRace has agents race for a network with hardly more subnets than agents, while leases are deleted, agents killed, hosts cut off and
// the store stopped. At no revision of the store may two hold subnets that overlap, and in the end each has its own.
func TestRace(t *testing.T) {
	if _, err := os.Stat("/usr/bin/etcd"); err != nil {
		t.Skip("etcd is not installed: apt-get install etcd-server etcd-client")
	}
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (-seed %d does the same again)", n, n)
	l, err := lab.Up(t.Context(), topology.HostsOnly(*racers+1), lab.Options{
		Name: fmt.Sprintf("chaosrace-%d", os.Getpid()), Attached: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: 3 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	r := &race{Lab: l, t: t, rnd: rand.New(rand.NewPCG(n, 2)), holders: map[netip.Prefix]netip.Addr{}}
	r.startEtcd()
	r.connect()
	begun := time.Now()
	for i := range *racers {
		if err := l.Run(t.Context(), r.host(i), lab.Agent, "weft", "agent", "--kubeconfig=", "--iface=eth0",
			"--etcd-endpoints=http://172.17.42.31:2379"); err != nil {
			t.Fatal(err)
		}
	}
	r.settled()
	t.Logf("%d agents have their leases %s after the first was started", *racers, time.Since(begun).Round(time.Millisecond))
	done := map[string]int{}
	for end := time.Now().Add(time.Duration(*raceFor) * time.Second); time.Now().Before(end); {
		done[r.disturb()]++
		r.wait(time.Duration(r.rnd.IntN(150)) * time.Millisecond)
	}
	begun = time.Now()
	r.settled()
	t.Logf("disturbed by %v; all have their leases %s after the last; %d revisions of leases", done, time.Since(begun).Round(time.Millisecond), r.changes)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.wrong {
		t.Error(w)
	}
}

// host is the name of a racer's host; the first of the lab is the store's.
func (r *race) host(i int) string { return fmt.Sprint("h", i+2) }

func (r *race) startEtcd() {
	r.t.Helper()
	const url = "http://172.17.42.31:2379"
	if err := r.Run(r.t.Context(), "h1", etcd, "etcd", "--name=store", "--data-dir=/var/lib/etcd", "--listen-client-urls="+url+",http://127.0.0.1:2379",
		"--advertise-client-urls="+url, "--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=store=http://127.0.0.1:2380", "--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync"); err != nil {
		r.t.Fatal(err)
	}
}

// connect writes the network's configuration and follows the leases revision by revision.
func (r *race) connect() {
	r.t.Helper()
	var err error
	if r.etcd, err = clientv3.New(clientv3.Config{
		Endpoints: []string{"http://172.17.42.31:2379"}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return r.Dial(ctx, "h1", "tcp", "127.0.0.1:2379")
		})},
	}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = r.etcd.Close() })
	ctx, stop := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer stop()
	// Subnets of 64 addresses, from the first to the one that makes them hardly enough.
	first := netip.MustParseAddr("10.77.0.0")
	last := netip.AddrFrom4([4]byte{10, 77, byte((*racers + spare - 1) * 64 >> 8), byte((*racers + spare - 1) * 64)})
	conf := fmt.Sprintf(`{"Network":"10.77.0.0/16","SubnetLen":26,"SubnetMin":"%s","SubnetMax":"%s","Backend":{"Type":"vxlan"}}`, first, last)
	if _, err := r.etcd.Put(ctx, "/coreos.com/network/config", conf); err != nil {
		r.t.Fatal(err)
	}
	watch := r.etcd.Watch(r.t.Context(), subnets, clientv3.WithPrefix(), clientv3.WithRev(1))
	go func() {
		for resp := range watch {
			if err := resp.Err(); err != nil {
				r.mu.Lock()
				r.wrong = append(r.wrong, "watch of the history: "+err.Error())
				r.mu.Unlock()
			}
			for _, e := range resp.Events {
				r.happened(e)
			}
		}
	}()
}

// happened takes in one change of a lease and looks at all holders after it.
func (r *race) happened(e *clientv3.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes++
	p, err := netip.ParsePrefix(strings.ReplaceAll(strings.TrimPrefix(string(e.Kv.Key), subnets), "-", "/"))
	if err != nil {
		r.wrong = append(r.wrong, err.Error())
		return
	}
	if e.Type == clientv3.EventTypeDelete {
		delete(r.holders, p)
		return
	}
	var v struct{ PublicIP netip.Addr }
	if err := json.Unmarshal(e.Kv.Value, &v); err != nil {
		r.wrong = append(r.wrong, err.Error())
		return
	}
	for other, holder := range r.holders {
		if other.Overlaps(p) && holder != v.PublicIP {
			r.wrong = append(r.wrong, fmt.Sprintf("revision %d: %s of %s overlaps %s of %s", e.Kv.ModRevision, p, v.PublicIP, other, holder))
		}
	}
	r.holders[p] = v.PublicIP
}

// settled waits until each agent has one subnet in the store and says the same of itself.
func (r *race) settled() {
	r.t.Helper()
	begun := time.Now()
	for {
		err := r.each()
		if err == nil {
			return
		}
		if time.Since(begun) > 90*time.Second {
			r.t.Fatal(err)
		}
		r.wait(100 * time.Millisecond)
	}
}

func (r *race) each() error {
	r.mu.Lock()
	of := map[netip.Addr][]netip.Prefix{}
	for p, holder := range r.holders {
		of[holder] = append(of[holder], p)
	}
	r.mu.Unlock()
	top := r.Topology()
	for i := range *racers {
		h, _ := top.Host(r.host(i))
		if len(of[h.Address]) != 1 {
			return fmt.Errorf("%s holds %v", h.Name, of[h.Address])
		}
		var s struct{ Subnet string }
		ctx, stop := context.WithTimeout(r.t.Context(), 10*time.Second)
		out, err := r.Exec(ctx, h.Name, "weft", "status", "-o", "json")
		stop()
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		if err != nil || s.Subnet != of[h.Address][0].String() {
			return errors.Join(err, fmt.Errorf("%s says %q, the store %v", h.Name, s.Subnet, of[h.Address]))
		}
	}
	return nil
}

// disturb does one thing to somebody and says what.
func (r *race) disturb() string {
	ctx := r.t.Context()
	host := r.host(r.rnd.IntN(*racers))
	switch r.rnd.IntN(12) {
	case 0, 1, 2:
		r.check(r.Signal(ctx, host, lab.Agent, syscall.SIGKILL))
		r.check(r.Start(ctx, host, lab.Agent))
		return "kill"
	case 3, 4:
		r.sh(host, silence+"nft add rule inet silence in iifname eth0 drop; nft add rule inet silence out oifname eth0 drop; "+
			"(sleep 1.5; nft delete table inet silence) >/dev/null 2>&1 &")
		return "partition"
	case 5:
		r.check(r.Signal(ctx, host, lab.Agent, syscall.SIGSTOP))
		r.wait(200 * time.Millisecond)
		r.check(r.Signal(ctx, host, lab.Agent, syscall.SIGCONT))
		return "stop"
	case 6:
		r.check(r.Signal(ctx, "h1", etcd, syscall.SIGKILL))
		r.startEtcd()
		return "etcd kill"
	}
	r.mu.Lock()
	var keys []string
	for p := range r.holders {
		keys = append(keys, subnets+strings.ReplaceAll(p.String(), "/", "-"))
	}
	r.mu.Unlock()
	r.rnd.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	var ops []clientv3.Op
	for _, key := range keys[:min(len(keys), 1+r.rnd.IntN(4))] {
		ops = append(ops, clientv3.OpDelete(key))
	}
	tctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_, _ = r.etcd.Txn(tctx).Then(ops...).Commit() // the store may be down
	return "delete"
}

// check ends the test on an error that is not just that the program was not running.
func (r *race) check(err error) {
	r.t.Helper()
	if err != nil && !strings.Contains(err.Error(), "running") {
		r.t.Error(err)
	}
}

func (r *race) sh(host, command string) {
	r.t.Helper()
	ctx, stop := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer stop()
	if out, err := r.Exec(ctx, host, "sh", "-c", command); err != nil {
		r.t.Logf("%s: %v %s", host, err, out) // it is cut off already
	}
}

func (r *race) wait(d time.Duration) {
	select {
	case <-r.t.Context().Done():
	case <-time.After(d):
	}
}
