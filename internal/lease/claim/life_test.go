package claim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
)

// life is one host against a store written by hand.
type life struct {
	t     *testing.T
	now   time.Time
	rev   int64
	view  View
	state State
	want  Want
	notes []string
}

func newLife(t *testing.T) *life {
	l := &life{t: t, now: time.Unix(1_700_000_000, 0), rev: 10}
	l.want.Self = api.Lease{PublicIP: addr("172.17.42.31"), BackendType: lease.VXLAN, VNI: 1, VTEPMAC: "02:00:00:00:00:01"}
	l.view.Reset(Snapshot{Revision: 10, Cluster: 1, Entries: []Entry{{Key: ConfigKey, Value: []byte(walkthrough), Created: 2, Modified: 2}}}, l.now)
	return l
}

func (l *life) next(want Verb) Action {
	l.t.Helper()
	s, a, notes := l.state.Next(l.now, &l.view, l.want, func(int) int { return 0 })
	l.state, l.notes = s, append(l.notes, notes...)
	if a.Verb != want {
		l.t.Fatalf("next is %s %s, want %s (notes %q)", a.Verb, a.Key, want, l.notes)
	}
	return a
}

func (l *life) done(a Action, o Outcome) {
	o.Sent = l.now
	l.state = l.state.Done(l.now, a, o)
}

// put is a change of the store: by us when a is given.
func (l *life) put(key, value string, etcdLease, created int64) {
	l.rev++
	if created == 0 {
		created = l.rev
	}
	l.view.Apply(Batch{Revision: l.rev, Changes: []Change{{Entry: Entry{
		Key: Subnets + key, Value: []byte(value), Lease: etcdLease, Created: created, Modified: l.rev,
	}}}})
}

// hold brings the host to a lease on 172.16.1.0/24 and returns its value.
func (l *life) hold() string {
	l.t.Helper()
	a := l.next(Claim)
	if a.Key != "172.16.1.0-24" || a.Guard != "172.16.1." || a.Revision != 10 || a.ConfigRevision != 2 {
		l.t.Fatalf("claim %+v", a)
	}
	l.done(a, Outcome{Result: Done, Revision: 11, EtcdLease: 7})
	l.next(Wait) // the view does not have it yet
	data, err := lease.Marshal(a.Lease)
	if err != nil {
		l.t.Fatal(err)
	}
	l.put(a.Key, string(data), 7, 0)
	if w := l.next(Wait); l.state.Phase != Held || !w.Until.Equal(l.now.Add(Renew)) {
		l.t.Fatalf("%s until %s", l.state.Phase, w.Until)
	}
	return string(data)
}

func (l *life) noted(part string) {
	l.t.Helper()
	if !strings.Contains(strings.Join(l.notes, "\n"), part) {
		l.t.Errorf("no note with %q: %q", part, l.notes)
	}
}

func TestRenewal(t *testing.T) {
	l := newLife(t)
	l.hold()
	l.now = l.now.Add(Renew)
	a := l.next(Extend)
	if a.EtcdLease != 7 {
		t.Errorf("extends %d", a.EtcdLease)
	}
	l.done(a, Outcome{Result: Unknown})
	if w := l.next(Wait); w.Until.Sub(l.now) != retryFirst {
		t.Errorf("tries again at %s", w.Until)
	}
	l.now = l.now.Add(retryFirst)
	l.done(l.next(Extend), Outcome{Result: Done, TTL: 86400})
	if !l.state.Expiry.Equal(l.now.Add(TTL)) || !l.state.Own.Expiry.Equal(l.state.Expiry) {
		t.Errorf("expiry %s", l.state.Expiry)
	}
	if w := l.next(Wait); !w.Until.Equal(l.now.Add(Renew)) {
		t.Errorf("next renewal %s", w.Until)
	}
	l.now = l.now.Add(25 * time.Hour)
	l.next(Extend)
	l.noted("lease 172.16.1.0-24 could not be renewed before")
}

func TestUnknownClaimIsRevoked(t *testing.T) {
	l := newLife(t)
	a := l.next(Claim)
	l.done(a, Outcome{Result: Unknown, EtcdLease: 7})
	l.next(Wait)
	l.now = l.now.Add(time.Second)
	a = l.next(Revoke)
	if a.EtcdLease != 7 {
		t.Errorf("revokes %d", a.EtcdLease)
	}
	l.done(a, Outcome{Result: NoLease})
	l.next(Claim)
}

func TestOverwritten(t *testing.T) {
	l := newLife(t)
	mine := l.hold()
	theirs := strings.Replace(mine, "02:00:00:00:00:01", "02:00:00:00:00:99", 1)
	// Another host with our address: said, written again, later each time.
	for i, wait := range []time.Duration{1, 2, 4, 8} {
		l.put("172.16.1.0-24", theirs, 50, 11)
		if w := l.next(Wait); w.Until.Sub(l.now) != wait*time.Second {
			t.Fatalf("fight %d: waits %s", i, w.Until.Sub(l.now))
		}
		l.noted("VTEP 02:00:00:00:00:99 instead of 02:00:00:00:00:01, " + "time " + fmt.Sprint(i+1))
		l.now = l.now.Add(wait * time.Second)
		a := l.next(Update)
		if a.Modified != l.rev || a.EtcdLease != 50 || a.Lease.VTEPMAC != "02:00:00:00:00:01" {
			t.Fatalf("update %+v", a)
		}
		l.done(a, Outcome{Result: Done, Revision: l.rev + 1})
		l.put("172.16.1.0-24", mine, 50, 11)
		if i == 0 { // the etcd lease is not ours: how long it lasts is not known
			l.done(l.next(Extend), Outcome{Result: Done, TTL: 86400})
		}
		l.next(Wait)
	}
	// What cannot be read is written over too.
	l.put("172.16.1.0-24", "garbage", 50, 11)
	l.next(Wait)
	l.noted("lease 172.16.1.0-24 was overwritten with what cannot be read")
	l.now = l.now.Add(time.Minute)
	l.next(Update)
}

func TestTakenByAnother(t *testing.T) {
	l := newLife(t)
	mine := l.hold()
	l.put("172.16.1.0-24", strings.NewReplacer("172.17.42.31", "172.17.42.32", "00:01\"", "00:02\"").Replace(mine), 50, 0)
	a := l.next(Claim)
	l.noted("lease 172.16.1.0-24 belongs to 172.17.42.32 now")
	if a.Key != "172.16.2.0-24" || l.state.Phase != Lost || l.state.Own.Subnet != pfx("172.16.1.0/24") {
		t.Errorf("%s, own %s, claims %s", l.state.Phase, l.state.Own.Subnet, a.Key)
	}
}

func TestMadeAReservation(t *testing.T) {
	l := newLife(t)
	mine := l.hold()
	l.put("172.16.1.0-24", mine, 0, 11)
	if w := l.next(Wait); !w.Until.IsZero() || !l.state.Permanent || !l.state.Own.Expiry.IsZero() {
		t.Errorf("until %s, %+v", w.Until, l.state)
	}
	l.now = l.now.Add(100 * time.Hour)
	l.next(Wait) // it does not run out
}

func TestAddressChange(t *testing.T) {
	l := newLife(t)
	l.hold()
	l.want.Self.PublicIP = addr("172.17.42.77")
	a := l.next(Update)
	if a.Key != "172.16.1.0-24" || a.Lease.PublicIP != addr("172.17.42.77") || a.EtcdLease != 7 {
		t.Errorf("update %+v", a)
	}
	// The answer is lost, the put was done: nobody else wrote it.
	l.done(a, Outcome{Result: Unknown})
	data, err := lease.Marshal(a.Lease)
	if err != nil {
		t.Fatal(err)
	}
	l.put(a.Key, string(data), 7, 11)
	l.now = l.now.Add(time.Second)
	l.next(Wait)
	if l.state.Own.PublicIP != addr("172.17.42.77") || len(l.notes) != 0 {
		t.Errorf("own %+v, notes %q", l.state.Own, l.notes)
	}
	// An address that cannot be announced changes nothing and is said.
	l.want.Self.PublicIP = addr("127.0.0.1")
	l.next(Wait)
	l.noted(`keeping lease 172.16.1.0-24 as it is: lease 172.16.1.0-24: PublicIP: "127.0.0.1" cannot be reached`)
}

func TestNoConfig(t *testing.T) {
	l := newLife(t)
	l.view = View{}
	l.next(Wait)
	if len(l.notes) != 0 {
		t.Errorf("notes before anything is known: %q", l.notes)
	}
	l.view.Reset(Snapshot{Revision: 3, Cluster: 1}, l.now)
	l.next(Wait)
	l.noted("the store holds no network config: write one")
	l.next(Wait)
	if len(l.notes) != 1 {
		t.Errorf("said more than once: %q", l.notes)
	}
}

func TestViewRemembers(t *testing.T) {
	l := newLife(t)
	l.hold()
	const peer = `{"PublicIP":"172.17.42.32","PublicIPv6":null,"BackendType":"host-gw"}`
	l.put("172.16.9.0-24", peer, 8, 0)
	before := l.view.Records()
	l.view.Reset(Snapshot{Revision: 5, Cluster: 1, Entries: []Entry{
		{Key: ConfigKey, Value: []byte(walkthrough), Created: 2, Modified: 2},
	}}, l.now)
	if peers, _ := l.view.Peers(l.state.Own, nil); len(peers) != 1 || l.view.Epoch != 1 || len(l.view.Records()) != len(before) {
		t.Fatalf("after the restore: %v, %+v", peers, l.view.Records())
	}
	if a := l.next(Claim); a.Key != "172.16.1.0-24" {
		t.Errorf("claims %s", a.Key)
	}
	if next := l.view.Forget(l.now); !next.Equal(l.now.Add(remember)) {
		t.Errorf("forgets at %s", next)
	}
	l.view.Apply(Batch{Revision: 6, Changes: []Change{{Entry: Entry{Key: Subnets + "172.16.9.0-24", Value: []byte(peer), Lease: 9, Created: 6, Modified: 6}}}})
	l.view.Forget(l.now.Add(remember))
	if r, ok := l.view.Record("172.16.9.0-24"); !ok || r.EtcdLease != 9 || len(l.view.Records()) != 1 {
		t.Errorf("the one that came back: %+v, %t; all %+v", r, ok, l.view.Records())
	}
	// A snapshot of the same history forgets at once.
	l.view.Reset(Snapshot{Revision: 7, Cluster: 1}, l.now)
	if got := l.view.Records(); len(got) != 0 {
		t.Errorf("records %+v", got)
	}
	if !l.view.HasConfig || l.view.ConfigRevision != 0 {
		t.Error("the last good config did not stay")
	}
}

// FuzzView: whatever events come in whatever order, the view stays in order, and a repeat changes nothing.
func FuzzView(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x84\x05\x01"), "172.16.1.0-24", `{"PublicIP":"10.0.0.1","PublicIPv6":null}`)
	f.Add([]byte("\x81\x01\x41\xc1"), "8.8.8.0-24", `{`)
	f.Fuzz(func(t *testing.T, script []byte, key, value string) {
		keys := []string{key, "172.16.1.0-24", "172.16.1.0-25", "10.9.9.0-24", "172.16.1.0-24&fd00::-64", "172.16.7.0-24"}
		var v View
		v.Reset(Snapshot{Revision: 1, Cluster: 1, Entries: []Entry{{Key: ConfigKey, Value: []byte(walkthrough), Modified: 1}}}, time.Unix(0, 0))
		for i, c := range script {
			e := Entry{Key: Subnets + keys[int(c&0x3f)%len(keys)], Lease: int64(c & 1), Created: int64(i + 2), Modified: int64(i + 2)}
			e.Value = []byte(value)
			if c&0x40 != 0 {
				e.Value = fmt.Appendf(nil, `{"PublicIP":"10.0.0.%d","PublicIPv6":null}`, c)
			}
			b := Batch{Revision: e.Modified, Changes: []Change{{Entry: e, Deleted: c&0x80 != 0}}}
			v.Apply(b)
			once := fmt.Sprintf("%+v", v.Records())
			v.Apply(b)
			if twice := fmt.Sprintf("%+v", v.Records()); twice != once {
				t.Fatalf("a repeat changed %s to %s", once, twice)
			}
		}
		if len(v.order) != len(v.records) {
			t.Fatalf("%d in order, %d known", len(v.order), len(v.records))
		}
		peers, refused := v.Peers(api.Lease{}, routes(pfx("172.17.0.0/16")))
		idle := 0
		for _, r := range v.Records() {
			if r.Idle(v.Config) && r.misfit == "" {
				idle++
			}
		}
		if n := len(peers) + len(refused); n > len(v.records) || n+idle < len(v.records) {
			t.Fatalf("%d peers, %d refused, %d known", len(peers), len(refused), len(v.records))
		}
		for i := range peers {
			for j := range i {
				if overlaps(peers[i], peers[j]) {
					t.Fatalf("peers %+v and %+v overlap", peers[i], peers[j])
				}
			}
		}
	})
}

// BenchmarkOneMore is one added lease among 5,000.
func BenchmarkOneMore(b *testing.B) {
	v, own := manyLeases(b, 5000)
	const value = `{"PublicIP":"10.0.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}`
	rev := v.Revision
	for b.Loop() {
		rev++
		v.Apply(Batch{Revision: rev, Changes: []Change{{Entry: Entry{
			Key: Subnets + "10.200.0.0-24", Value: []byte(value), Lease: rev, Created: rev, Modified: rev,
		}}}})
		if peers, _ := v.Peers(own, nil); len(peers) != 5001 {
			b.Fatal(len(peers))
		}
	}
}

// BenchmarkSnapshot is the start with 5,000 leases.
func BenchmarkSnapshot(b *testing.B) {
	for b.Loop() {
		manyLeases(b, 5000)
	}
}

func manyLeases(b *testing.B, n int) (*View, api.Lease) {
	b.Helper()
	s := Snapshot{Revision: int64(n) + 5, Cluster: 1, Entries: []Entry{
		{Key: ConfigKey, Value: []byte(`{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`), Modified: 2},
	}}
	for i := range n {
		s.Entries = append(s.Entries, Entry{
			Key: fmt.Sprintf("%s10.%d.%d.0-24", Subnets, 1+i/250, i%250), Lease: int64(i) + 1, Created: int64(i) + 3, Modified: int64(i) + 3,
			Value: fmt.Appendf(nil, `{"PublicIP":"192.168.%d.%d","PublicIPv6":null,"BackendType":"vxlan",`+
				`"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}}`, i/250, 1+i%250, i/250, i%250),
		})
	}
	var v View
	v.Reset(s, time.Unix(0, 0))
	own := api.Lease{Subnet: pfx("10.250.0.0/24"), PublicIP: addr("192.0.2.1")}
	if peers, refused := v.Peers(own, nil); len(peers) != n || len(refused) != 0 {
		b.Fatalf("%d peers, refused %v", len(peers), refused)
	}
	return &v, own
}
