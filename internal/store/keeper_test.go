package store_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store"
	"weft/internal/store/mem"
)

const config = `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`

func newStore() *mem.Store {
	s := mem.New(time.Now)
	s.Put(claim.ConfigKey, config, 0)
	return s
}

func want(n int) claim.Want {
	return claim.Want{Self: api.Lease{
		PublicIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + n)}), BackendType: lease.VXLAN, VNI: 1,
		VTEPMAC: fmt.Sprintf("02:00:00:00:00:%02x", n),
	}}
}

func run(t *testing.T, kv store.KV, w claim.Want) (*store.Keeper, func()) {
	t.Helper()
	out := io.Discard
	if testing.Verbose() {
		out = t.Output()
	}
	k := store.NewKeeper(kv, w, slog.New(slog.NewTextHandler(out, nil)))
	k.CheckEvery = 50 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := k.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	end := func() { stop(); <-done }
	t.Cleanup(end)
	return k, end
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func own(t *testing.T, k *store.Keeper) api.Lease {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	l, err := k.WaitOwn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFiftyKeepers runs fifty hosts as fifty real goroutines against one store.
func TestFiftyKeepers(t *testing.T) {
	s := newStore()
	var all []*store.Keeper
	for i := range 50 {
		k, _ := run(t, s, want(i))
		all = append(all, k)
	}
	seen := map[netip.Prefix]bool{}
	for _, k := range all {
		l := own(t, k)
		if seen[l.Subnet] {
			t.Errorf("%s is held twice", l.Subnet)
		}
		seen[l.Subnet] = true
	}
	eventually(t, "all see all", func() bool {
		for _, k := range all {
			if len(k.Peers()) != 49 || len(k.Leases()) != 50 {
				return false
			}
		}
		return true
	})
}

// TestChanged: what happens is told, and what changes nothing is not.
func TestChanged(t *testing.T) {
	s := newStore()
	k, _ := run(t, s, want(1))
	l := own(t, k)
	drain := func() {
		for {
			select {
			case <-k.Changed():
			case <-time.After(100 * time.Millisecond):
				return
			}
		}
	}
	drain()
	const peer = `{"PublicIP":"192.0.2.99","PublicIPv6":null,"BackendType":"host-gw"}`
	s.Put("subnets/172.20.1.0-24", peer, time.Hour)
	select {
	case <-k.Changed():
	case <-time.After(30 * time.Second):
		t.Fatal("a new peer was not told")
	}
	eventually(t, "the peer", func() bool { return len(k.Peers()) == 1 })
	told := true
	for try := 0; told && try < 5; try++ { // what is told may be late of something else, but not each time
		drain()
		s.Put("subnets/172.20.1.0-24", peer, time.Hour) // a renewal by flannel
		s.Put("other", "x", 0)
		select {
		case <-k.Changed():
		case <-time.After(200 * time.Millisecond):
			told = false
		}
	}
	if told {
		t.Error("a renewal was told as a change")
	}
	if got, _ := k.Own(); got.Subnet != l.Subnet {
		t.Errorf("own subnet moved to %s", got.Subnet)
	}
}

// TestLostLease: our key goes, and is put back; when it is somebody else's meanwhile, another subnet is taken.
func TestLostLease(t *testing.T) {
	s := newStore()
	k, _ := run(t, s, want(1))
	l := own(t, k)
	key := claim.Subnets + lease.Key(l)
	s.Delete(key)
	eventually(t, "the key is back", func() bool {
		for _, e := range s.Snapshot().Entries {
			if e.Key == key && e.Lease != 0 {
				return k.Status().Phase == claim.Held
			}
		}
		return false
	})
	s.Put(key, `{"PublicIP":"192.0.2.99","PublicIPv6":null,"BackendType":"host-gw"}`, time.Hour)
	eventually(t, "another subnet", func() bool {
		st := k.Status()
		return st.Phase == claim.Held && st.Own.Subnet != l.Subnet && len(st.Peers) == 1
	})
}

// TestDuplicatePublicIP: two hosts with one address do not write against each other without end, and both say it.
func TestDuplicatePublicIP(t *testing.T) {
	s := newStore()
	k1, _ := run(t, s, want(1))
	own(t, k1)
	twin := want(1)
	twin.Self.VTEPMAC = "02:00:00:00:00:77"
	k2, _ := run(t, s, twin)
	own(t, k2)
	says := func(k *store.Keeper) bool {
		return strings.Contains(k.Status().Problem, "was overwritten under our public address 192.0.2.2")
	}
	eventually(t, "the first says it", func() bool { return says(k1) })
	eventually(t, "the second says it", func() bool { return says(k2) })
	if rev := s.Snapshot().Revision; rev > 12 {
		t.Errorf("they wrote %d times", rev)
	}
}

// TestSilence: a silent store is noticed, what is known stays, and the return is noticed.
func TestSilence(t *testing.T) {
	s := newStore()
	kv := bounded{s}
	k, _ := run(t, kv, want(1))
	l := own(t, k)
	s.SetSilent(true)
	eventually(t, "the silence is said", func() bool { return strings.Contains(k.Status().Problem, "does not answer") })
	if got, _ := k.Own(); got.Subnet != l.Subnet {
		t.Errorf("own is %s", got.Subnet)
	}
	s.SetSilent(false)
	eventually(t, "the return is noticed", func() bool { return k.Status().Problem == "" })
	s.SetDown(true)
	eventually(t, "the outage is said", func() bool { return strings.Contains(k.Status().Problem, "does not answer") })
	s.SetDown(false)
	eventually(t, "the return is noticed", func() bool { return k.Status().Problem == "" })
}

// bounded gives the requests the bound in time the contract of store.KV asks for.
type bounded struct{ *mem.Store }

func (b bounded) List(ctx context.Context) (claim.Snapshot, error) {
	ctx, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	return b.Store.List(ctx)
}

func (b bounded) Check(ctx context.Context) (int64, uint64, error) {
	ctx, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	return b.Store.Check(ctx)
}

// TestRestore: the store goes back to before the leases; every host puts its own back and nobody moves.
func TestRestore(t *testing.T) {
	s := newStore()
	empty := s.Backup()
	var all []*store.Keeper
	var before []netip.Prefix
	for i := range 5 {
		k, _ := run(t, s, want(i))
		all, before = append(all, k), append(before, own(t, k).Subnet)
	}
	eventually(t, "all see all", func() bool { return len(all[0].Peers()) == 4 && len(all[4].Peers()) == 4 })
	s.Restore(empty)
	stranger := want(60)
	stranger.Self.Subnet = netip.MustParsePrefix("172.20.200.0/24") // it cannot know what was leased before
	late, _ := run(t, s, stranger)
	eventually(t, "all leases are back", func() bool {
		n := 0
		for _, e := range s.Snapshot().Entries {
			if strings.HasPrefix(e.Key, claim.Subnets) {
				n++
			}
		}
		return n == 6
	})
	own(t, late)
	for i, k := range all {
		eventually(t, "everybody holds and sees the newcomer", func() bool {
			st := k.Status()
			return st.Phase == claim.Held && len(st.Peers) == 5
		})
		if got := k.Status().Own.Subnet; got != before[i] {
			t.Errorf("host %d moved from %s to %s", i, before[i], got)
		}
	}
}

// TestWaitOwn: what is missing is in the error.
func TestWaitOwn(t *testing.T) {
	s := mem.New(time.Now)
	k, _ := run(t, s, want(1))
	eventually(t, "the problem is known", func() bool { return k.Status().Problem != "" })
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := k.WaitOwn(ctx); err == nil || !strings.Contains(err.Error(), "acquire a subnet: the store holds no network config: write one with") {
		t.Errorf("got %v", err)
	}
	s.Put(claim.ConfigKey, `{"Network":"ten"}`, 0)
	eventually(t, "the broken config is said", func() bool { return strings.Contains(k.Status().Problem, `"ten" is not an IPv4 network`) })
	s.Put(claim.ConfigKey, config, 0)
	own(t, k)
	s.Put(claim.ConfigKey, `{`, 0)
	eventually(t, "the last good config stays", func() bool { return k.Status().HasConfig && k.Status().Config.Backend.Type == lease.VXLAN })
}
