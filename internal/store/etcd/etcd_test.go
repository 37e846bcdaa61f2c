package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store"
	"weft/internal/store/etcd/etcdtest"
)

const (
	testConfig = `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`
	prefix     = DefaultPrefix + "/"
)

// open returns a client of the server with the config in place.
func open(t *testing.T, s *etcdtest.Server) *Client {
	t.Helper()
	c, err := Open(Config{Endpoints: []string{s.URL}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func apply(t *testing.T, c *Client) {
	t.Helper()
	if _, err := c.PutConfig(t.Context(), []byte(testConfig), false); err != nil {
		t.Fatal(err)
	}
}

func want(n int) claim.Want {
	return claim.Want{
		Self: api.Lease{
			PublicIP: netip.AddrFrom4([4]byte{172, 17, 42, byte(30 + n)}), BackendType: lease.VXLAN, VNI: 1,
			VTEPMAC: fmt.Sprintf("02:00:00:00:00:%02x", n),
		},
		Avoid: []claim.HostRoute{{Dst: netip.MustParsePrefix("172.17.0.0/16"), Dev: "eth0"}},
	}
}

// run runs a Keeper until the test ends or the returned function is called.
func run(t *testing.T, c *Client, w claim.Want) (*store.Keeper, func()) {
	t.Helper()
	return runEvery(t, c, w, 300*time.Millisecond)
}

// runEvery is run with the time between two checks.
func runEvery(t *testing.T, c *Client, w claim.Want, check time.Duration) (*store.Keeper, func()) {
	t.Helper()
	k := store.NewKeeper(c, w, slog.New(slog.NewTextHandler(testWriter(t), nil)))
	k.CheckEvery = check
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

func testWriter(t *testing.T) io.Writer {
	if testing.Verbose() {
		return t.Output()
	}
	return io.Discard
}

// eventually waits until f says true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func own(t *testing.T, k *store.Keeper) api.Lease {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	l, err := k.WaitOwn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func held(k *store.Keeper, subnet netip.Prefix) bool {
	s := k.Status()
	return s.Phase == claim.Held && s.Own.Subnet == subnet
}

// TestLease follows two hosts through acquisition, a change, deletion of the key and a restart.
func TestLease(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c, raw := open(t, server), server.Client()
	apply(t, c)
	k1, end1 := run(t, c, want(1))
	w2 := want(2)
	w2.Self.Subnet = netip.MustParsePrefix("172.16.78.0/24")
	k2, _ := run(t, c, w2)
	l1 := own(t, k1)
	if got := own(t, k2).Subnet; got != w2.Self.Subnet {
		t.Errorf("asked for %s, got %s", w2.Self.Subnet, got)
	}
	eventually(t, "both see each other", func() bool { return len(k1.Peers()) == 1 && len(k2.Peers()) == 1 })

	r, err := raw.Get(t.Context(), prefix+"subnets/"+lease.Key(l1))
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("key: %v, %v", r, err)
	}
	value := `{"PublicIP":"172.17.42.31","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}`
	if got := string(r.Kvs[0].Value); got != value {
		t.Errorf("value %s\n want %s", got, value)
	}
	ttl, err := raw.TimeToLive(t.Context(), clientv3.LeaseID(r.Kvs[0].Lease))
	if err != nil || ttl.GrantedTTL != 86400 {
		t.Errorf("etcd lease: %+v, %v, want 86400 s", ttl, err)
	}

	k1.Change(func(w *claim.Want) { w.Self.VTEPMAC = "02:00:00:00:01:01" })
	eventually(t, "the peer reads the new MAC", func() bool {
		p := k2.Peers()
		return len(p) == 1 && p[0].VTEPMAC == "02:00:00:00:01:01" && p[0].Subnet == l1.Subnet
	})
	if _, err := raw.Delete(t.Context(), prefix+"subnets/"+lease.Key(l1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the same subnet is leased again", func() bool {
		r, err := raw.Get(t.Context(), prefix+"subnets/"+lease.Key(l1))
		return err == nil && len(r.Kvs) == 1 && held(k1, l1.Subnet)
	})
	end1()
	k1, _ = run(t, c, want(1))
	if got := own(t, k1).Subnet; got != l1.Subnet {
		t.Errorf("after the restart %s, before %s", got, l1.Subnet)
	}
}

// TestRace starts twenty hosts at once.
func TestRace(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c := open(t, server)
	apply(t, c)
	var all []*store.Keeper
	for i := range 20 {
		k, _ := run(t, c, want(i))
		all = append(all, k)
	}
	seen := map[netip.Prefix]bool{}
	for _, k := range all {
		l := own(t, k)
		if seen[l.Subnet] || netip.MustParsePrefix("172.17.0.0/16").Overlaps(l.Subnet) {
			t.Errorf("%s is held twice or lies in the underlay", l.Subnet)
		}
		seen[l.Subnet] = true
	}
	eventually(t, "all see all", func() bool {
		for _, k := range all {
			if len(k.Peers()) != len(all)-1 {
				return false
			}
		}
		return true
	})
}

// TestDualStackRace does it with both families, where a claim minds every key.
func TestDualStackRace(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c := open(t, server)
	if _, err := c.PutConfig(t.Context(), []byte(
		`{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","Backend":{"Type":"host-gw"}}`), false); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Prefix]bool{}
	var all []*store.Keeper
	for i := range 10 {
		w := claim.Want{Self: api.Lease{
			BackendType: lease.HostGW, PublicIP: want(i).Self.PublicIP,
			PublicIPv6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1)),
		}}
		k, _ := run(t, c, w)
		all = append(all, k)
	}
	for _, k := range all {
		l := own(t, k)
		if !l.Subnet.IsValid() || !l.SubnetV6.IsValid() || seen[l.Subnet] || seen[l.SubnetV6] {
			t.Errorf("%s and %s", l.Subnet, l.SubnetV6)
		}
		seen[l.Subnet], seen[l.SubnetV6] = true, true
	}
}

// TestOutage ends and restarts etcd, makes it silent, and puts an earlier state back.
func TestOutage(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c, raw := open(t, server), server.Client()
	apply(t, c)
	early := filepath.Join(t.TempDir(), "early")
	server.Kill()
	copyDir(t, server.Data, early)
	server.Start()

	k1, _ := run(t, c, want(1))
	k2, _ := run(t, c, want(2))
	l1, l2 := own(t, k1), own(t, k2)
	eventually(t, "both see each other", func() bool { return len(k1.Peers()) == 1 && len(k2.Peers()) == 1 })

	server.Kill()
	eventually(t, "the outage is said", func() bool {
		return strings.Contains(k1.Status().Problem, "does not answer") && strings.Contains(k1.Status().Problem, server.URL)
	})
	if len(k1.Peers()) != 1 || !held(k1, l1.Subnet) {
		t.Errorf("what is known did not stay: %+v", k1.Status())
	}
	server.Start()
	eventually(t, "it is over", func() bool { return k1.Status().Problem == "" && k2.Status().Problem == "" })

	server.Stop()
	eventually(t, "the silence is said", func() bool { return strings.Contains(k1.Status().Problem, "no answer within") })
	if len(k1.Peers()) != 1 {
		t.Errorf("what is known did not stay: %+v", k1.Status())
	}
	server.Continue()
	eventually(t, "it is over", func() bool { return k1.Status().Problem == "" && k2.Status().Problem == "" })

	// Nothing of the leases is in the earlier state; both put theirs back and nobody loses its peer meanwhile.
	lost := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if len(k1.Peers()) != 1 {
				close(lost)
				return
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
			if r, err := raw.Get(t.Context(), prefix+"subnets/", clientv3.WithPrefix()); err == nil && len(r.Kvs) == 2 &&
				r.Kvs[0].CreateRevision < 5 {
				return
			}
		}
	}()
	server.Kill()
	if err := os.RemoveAll(server.Data); err != nil {
		t.Fatal(err)
	}
	copyDir(t, early, server.Data)
	server.Start()
	eventually(t, "both leases are put back", func() bool {
		r, err := raw.Get(t.Context(), prefix+"subnets/", clientv3.WithPrefix())
		return err == nil && len(r.Kvs) == 2 && held(k1, l1.Subnet) && held(k2, l2.Subnet)
	})
	<-done
	select {
	case <-lost:
		t.Error("the peer was given up while it put its lease back")
	default:
	}
	k3, _ := run(t, c, want(3))
	own(t, k3)
	eventually(t, "later leases are seen", func() bool { return len(k1.Peers()) == 2 && len(k2.Peers()) == 2 })
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestCompaction breaks the watch with a compaction while the host was away.
func TestCompaction(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c, raw := open(t, server), server.Client()
	apply(t, c)
	for i := range 5 {
		if _, err := raw.Put(t.Context(), "x", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Compact(t.Context(), s.Revision); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	err = c.Watch(ctx, 1, func(b claim.Batch) { t.Errorf("batch %+v", b) })
	if err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("watch from a compacted revision: %v", err)
	}
}

// TestMalformed puts what cannot be used between good leases: it is refused, named, and holds nothing up.
func TestMalformed(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c, raw := open(t, server), server.Client()
	apply(t, c)
	k, _ := run(t, c, want(1))
	own(t, k)
	put := func(key, value string) {
		t.Helper()
		if _, err := raw.Put(t.Context(), prefix+"subnets/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	const good = `{"PublicIP":"172.17.42.99","PublicIPv6":null,"BackendType":"host-gw"}`
	put("172.20.1.0-24", `{"PublicIP":"172.17.42.98","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff:00:11"}}`)
	put("8.8.8.0-24", good)
	put("172.17.42.0-24", good)
	put("nonsense", good)
	put("172.20.2.0-24", "{")
	put("172.20.3.0-24", good)
	put("172.20.3.128-25", good)
	begun := time.Now()
	eventually(t, "the good one arrives", func() bool { return len(k.Peers()) == 1 })
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
	eventually(t, "the others are refused", func() bool { return len(k.Status().Refused) == 6 })
	reasons := ""
	for _, r := range k.Status().Refused {
		reasons += r.Key + ": " + r.Reason + "\n"
	}
	for _, want := range []string{
		`172.20.1.0-24: BackendData.VtepMAC: "aa:bb:cc:dd:ee:ff:00:11" is not an Ethernet address`,
		`8.8.8.0/24: outside Network 172.16.0.0/12`, `overlaps this host's own route 172.17.0.0/16 dev eth0`, `lease key "nonsense"`,
		`lease 172.20.2.0-24: JSON ends too early`, `lease 172.20.3.128-25 of 172.17.42.99: overlaps a lease that was there before`,
	} {
		if !strings.Contains(reasons, want) {
			t.Errorf("no %q in\n%s", want, reasons)
		}
	}
}

// TestReservation: a key without an etcd lease stays one.
func TestReservation(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c, raw := open(t, server), server.Client()
	apply(t, c)
	if _, err := raw.Put(t.Context(), prefix+"subnets/172.20.7.0-24", `{"PublicIP":"172.17.42.31","PublicIPv6":null}`); err != nil {
		t.Fatal(err)
	}
	k, _ := run(t, c, want(1))
	if l := own(t, k); l.Subnet != netip.MustParsePrefix("172.20.7.0/24") || !l.Expiry.IsZero() {
		t.Errorf("got %+v, want the reservation", l)
	}
	r, err := raw.Get(t.Context(), prefix+"subnets/172.20.7.0-24")
	if err != nil || r.Kvs[0].Lease != 0 || !strings.Contains(string(r.Kvs[0].Value), "02:00:00:00:00:01") {
		t.Errorf("key %v, %v: want our data and no etcd lease", r.Kvs, err)
	}
}

func TestPutConfig(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c := open(t, server)
	if _, _, err := c.NetworkConfig(t.Context()); !errors.Is(err, ErrNoConfig) {
		t.Errorf("empty store: %v, want ErrNoConfig", err)
	}
	k, _ := run(t, c, want(1))
	eventually(t, "the missing config is said", func() bool { return strings.Contains(k.Status().Problem, "weft network apply") })
	apply(t, c)
	l := own(t, k)
	if a, err := c.PutConfig(t.Context(), []byte(testConfig), false); err != nil || a.Changed {
		t.Errorf("the same again: %+v, %v", a, err)
	}
	other := []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	_, err := c.PutConfig(t.Context(), other, false)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), lease.Key(l)) || !strings.Contains(err.Error(), "outside the network 10.5.0.0/16") {
		t.Errorf("got %v, want ErrInUse that names %s", err, lease.Key(l))
	}
	if _, err := c.PutConfig(t.Context(), []byte(`{"Network":"10.5.0.0"}`), true); err == nil {
		t.Error("a broken config was written")
	}
	if a, err := c.PutConfig(t.Context(), other, true); err != nil || !a.Changed || len(a.Moving) != 1 {
		t.Errorf("force: %+v, %v", a, err)
	}
	eventually(t, "the host moves", func() bool {
		s := k.Status()
		return s.Phase == claim.Held && netip.MustParsePrefix("10.5.0.0/16").Overlaps(s.Own.Subnet)
	})
	s, err := c.List(t.Context())
	if err != nil || len(s.Entries) != 2 {
		t.Errorf("store holds %+v, %v: want the config and one lease", s.Entries, err)
	}
}

// TestNotThere: an etcd that is not there is one line with its endpoint, in bounded time.
func TestNotThere(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "root"} {
		c, err := Open(Config{Endpoints: []string{"http://127.0.0.1:9"}, Timeout: 4 * time.Second, Username: user})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		begun := time.Now()
		_, err = c.List(t.Context())
		if d := time.Since(begun); d > 12*time.Second {
			t.Errorf("took %s", d)
		}
		if err == nil || !strings.Contains(err.Error(), "etcd http://127.0.0.1:9: no answer within 4s") ||
			!strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "\n") {
			t.Errorf("user %q: %v", user, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		"--etcd-endpoints: missing":        {},
		`"ftp://x:1" is not an etcd`:       {Endpoints: []string{"ftp://x:1"}},
		"has no port: write http://h:2379": {Endpoints: []string{"http://h"}},
		"all with http or all with https":  {Endpoints: []string{"http://h:1", "https://h:1"}},
		"does not begin with a slash":      {Endpoints: []string{"h:1"}, Prefix: "x"},
		"one is given without the other":   {Endpoints: []string{"https://h:1"}, CertFile: "c"},
		"is not encrypted, but TLS files":  {Endpoints: []string{"h:1"}, CAFile: "c"},
		"--etcd-cafile: open /none":        {Endpoints: []string{"https://h:1"}, CAFile: "/none"},
		"holds no PEM certificate":         {Endpoints: []string{"https://h:1"}, CAFile: "/dev/null"},
		"--etcd-username: missing":         {Endpoints: []string{"h:1"}, Password: "x"},
	} {
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
