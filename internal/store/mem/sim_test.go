package mem

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// deep multiplies the number of random runs: go test ./internal/store/mem -args -deep 100
var deep = flag.Int("deep", 1, "multiplies the number of random runs")

// simConfigs are the networks of the runs, each with what an operator may change it to by force.
var simConfigs = [][]string{
	{
		`{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`,
		`{"Network":"172.16.0.0/12","SubnetLen":22,"Backend":{"Type":"vxlan"}}`,
		`{"Network":"172.16.0.0/12","SubnetLen":25,"Backend":{"Type":"vxlan"}}`,
	},
	{
		`{"EnableIPv6":true,"Network":"172.16.0.0/12","IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`,
		`{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`,
		`{"EnableIPv6":true,"Network":"172.16.0.0/12","IPv6Network":"fd00:5::/48","IPv6SubnetLen":63,"Backend":{"Type":"vxlan"}}`,
	},
}

// host is one simulated host: the pure parts, and what lies between it and the store.
type host struct {
	name   string
	state  claim.State
	view   *claim.View
	want   claim.Want
	cut    bool           // no word to or from the store
	doing  *claim.Action  // sent, answer not yet looked at
	answer *claim.Outcome // the answer on its way, nil: it got lost
	late   []claim.Action // requests still on their way although the host has given up on them
	held   netip.Prefix   // the subnet of its first lease
	sent   time.Time      // by its own clock, when doing was sent
	rate   float64        // its clock's seconds in a second
	offset time.Duration  // its clock's difference at the beginning
	read   int            // restores it has read of and decided on
	notes  []string
}

// sim is one run: a store, hosts and a clock, driven by one random source.
type sim struct {
	t       *testing.T
	rnd     *rand.Rand
	now     time.Time
	store   *Store
	hosts   []*host
	backup  *Backup
	checked int64 // revision the store was last checked at
	// harm counts what takes a lease away without its holder having let it run out.
	harm    int
	configs []string
	log     []string

	begun    time.Time
	restores int
	quiet    bool // failures panic with a failure, for who wants to make them smaller
}

// failure is what a broken run panics with.
type failure struct{ text string }

func newSim(t *testing.T, seed uint64, hosts int) *sim {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1_700_000_000, 0)}
	s.begun = s.now
	s.store = New(func() time.Time { return s.now })
	s.configs = slices.Clone(simConfigs[seed%2])
	s.store.Put(claim.ConfigKey, s.configs[0], 0)
	for i := range hosts {
		ip := netip.AddrFrom4([4]byte{172, 17, 42, byte(30 + i)})
		h := &host{name: fmt.Sprintf("h%d", i), view: &claim.View{}}
		h.rate, h.offset = 0.97+0.06*s.rnd.Float64(), time.Duration(s.rnd.Int64N(int64(96*time.Hour)))-48*time.Hour
		h.want.Self = api.Lease{
			PublicIP: ip, PublicIPv6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 0x30+i)),
			BackendType: lease.VXLAN, VNI: 1, VTEPMAC: fmt.Sprintf("02:00:00:00:00:%02x", i), VTEPMACv6: fmt.Sprintf("02:00:00:00:06:%02x", i),
		}
		h.want.Avoid = []claim.HostRoute{{Dst: netip.MustParsePrefix("172.17.0.0/16"), Dev: "eth0"}}
		s.hosts = append(s.hosts, h)
	}
	return s
}

func (s *sim) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

func (s *sim) fatalf(format string, args ...any) {
	s.t.Helper()
	if s.quiet {
		panic(failure{fmt.Sprintf(format, args...)})
	}
	s.t.Fatalf("%s\nlast steps:\n%s", fmt.Sprintf(format, args...), strings.Join(s.log[max(0, len(s.log)-60):], "\n"))
}

// clock is the time by the host's own clock, which runs too fast or too slow by up to 3 % and shows another time than the store's.
func (s *sim) clock(h *host) time.Time {
	return s.begun.Add(h.offset + time.Duration(h.rate*float64(s.now.Sub(s.begun))))
}

// sync brings a host's view forward: by all changes, by some, or by a new snapshot when it has to.
func (s *sim) sync(h *host, some bool) {
	snapshot := s.store.Snapshot()
	if h.view.Revision == 0 || snapshot.Revision < h.view.Revision || snapshot.Cluster != h.view.Cluster {
		h.view.Reset(snapshot, s.clock(h))
		return
	}
	batches, err := s.store.Since(h.view.Revision)
	if err != nil {
		h.view.Reset(snapshot, s.clock(h))
		return
	}
	if some && len(batches) > 0 {
		batches = batches[:1+s.rnd.IntN(len(batches))]
	}
	for _, b := range batches {
		h.view.Apply(b)
		if s.rnd.IntN(8) == 0 {
			h.view.Apply(b) // a repeat changes nothing
		}
	}
}

// act lets a host decide and send, with the faults of a network when asked for.
func (s *sim) act(h *host, faults bool) bool {
	h.view.Forget(s.clock(h))
	if h.doing != nil {
		return s.hear(h)
	}
	state, a, notes := h.state.Next(s.clock(h), h.view, h.want, s.rnd.IntN)
	h.state = state
	if h.view.Cluster == s.store.cluster {
		h.read = s.restores
	}
	for _, n := range notes {
		s.say("%s: note: %s", h.name, n)
		h.notes = append(h.notes, n)
	}
	if a.Verb == claim.Wait {
		return false
	}
	if (a.Verb == claim.Claim || a.Verb == claim.TakeOver) && !a.Permanent && !h.cut {
		a.EtcdLease = s.store.Grant(claim.TTL)
	}
	h.doing, h.sent = &a, s.clock(h)
	fault := 0
	if faults {
		fault = s.rnd.IntN(10)
	}
	switch {
	case h.cut, fault == 1: // the request is lost
	case fault == 2: // it is late
		h.late = append(h.late, a)
	case fault == 3: // done, the answer is lost
		s.exec(a)
	default:
		o := s.exec(a)
		h.answer = &o
	}
	s.say("%s: %s %s (fault %d, cut %t)", h.name, a.Verb, a.Key, fault, h.cut)
	return true
}

func (s *sim) exec(a claim.Action) claim.Outcome {
	o := s.store.Exec(a)
	s.check()
	return o
}

func (s *sim) hear(h *host) bool {
	o := claim.Outcome{Result: claim.Unknown, Sent: h.sent}
	if h.answer != nil && !h.cut {
		o = *h.answer
		o.Sent = h.sent
	} else if v := h.doing.Verb; v == claim.Claim || v == claim.TakeOver {
		o.EtcdLease = h.doing.EtcdLease
	}
	h.state = h.state.Done(s.clock(h), *h.doing, o)
	s.say("%s: %s %s: result %d at %d", h.name, h.doing.Verb, h.doing.Key, o.Result, o.Revision)
	h.doing, h.answer = nil, nil
	if h.state.Phase == claim.Held && !h.held.IsValid() {
		h.held = h.state.Own.Subnet
	}
	return true
}

// check is the invariant: no two keys of the store overlap.
func (s *sim) check() {
	s.t.Helper()
	snapshot := s.store.Snapshot()
	if snapshot.Revision == s.checked {
		return
	}
	s.checked = snapshot.Revision
	seen := map[netip.Prefix]string{}
	for _, e := range snapshot.Entries {
		key, ok := strings.CutPrefix(e.Key, claim.Subnets)
		if !ok {
			continue
		}
		v4, v6, err := lease.ParseKey(key)
		if err != nil {
			s.fatalf("key %s: %v", key, err)
		}
		for _, p := range []netip.Prefix{v4, v6} {
			for other, by := range seen {
				if p.IsValid() && other.Overlaps(p) {
					s.fatalf("keys %s and %s overlap", by, key)
				}
			}
		}
		for _, p := range []netip.Prefix{v4, v6} {
			if p.IsValid() {
				seen[p] = key
			}
		}
	}
}

// peace is the invariant of a run in which only time, the network and the hosts themselves did harm: a host that believes in
// its lease by its own clock has it, so no two hosts ever believe in overlapping ones.
func (s *sim) peace() {
	s.t.Helper()
	if s.harm > 0 || s.restores > 0 {
		return
	}
	values := map[string]string{}
	for _, e := range s.store.Snapshot().Entries {
		values[strings.TrimPrefix(e.Key, claim.Subnets)] = string(e.Value)
	}
	for _, h := range s.hosts {
		if h.state.Believes(s.clock(h)) && !h.state.Permanent &&
			!strings.Contains(values[lease.Key(h.state.Own)], h.want.Self.VTEPMAC) {
			s.fatalf("%s believes in %s until %s, the store does not have it", h.name, lease.Key(h.state.Own), h.state.Expiry)
		}
	}
}

// believers is the invariant of every run in which nobody deleted a key, an etcd lease or the time: no two hosts believe in overlapping
// subnets. After a restore it holds again as soon as every host has read the restored store and decided on it.
func (s *sim) believers() {
	s.t.Helper()
	if s.harm > 0 || slices.ContainsFunc(s.hosts, func(h *host) bool { return h.read != s.restores }) {
		return
	}
	for i, a := range s.hosts {
		for _, b := range s.hosts[:i] {
			x, y := a.state.Own, b.state.Own
			if a.state.Believes(s.clock(a)) && b.state.Believes(s.clock(b)) &&
				(x.Subnet.IsValid() && x.Subnet.Overlaps(y.Subnet) || x.SubnetV6.IsValid() && x.SubnetV6.Overlaps(y.SubnetV6)) {
				s.fatalf("%s and %s believe in %s and %s", a.name, b.name, lease.Key(x), lease.Key(y))
			}
		}
	}
}

// step does one random thing.
func (s *sim) step(harm bool) {
	h := s.hosts[s.rnd.IntN(len(s.hosts))]
	switch n := s.rnd.IntN(100); {
	case n < 35:
		if !h.cut {
			s.sync(h, true)
		}
	case n < 80:
		s.act(h, true)
	case n < 86:
		s.deliver(h)
	case n < 92:
		s.now = s.now.Add(time.Duration(s.rnd.IntN(2000)) * time.Millisecond)
	case n < 94:
		h.cut = !h.cut
	case n < 95:
		s.now = s.now.Add(time.Duration(s.rnd.IntN(12)) * time.Hour)
	case n < 96:
		s.store.Compact()
	case n < 97:
		s.restart(h)
	case !harm:
	default:
		s.injure(h)
	}
	s.check()
	s.peace()
	s.believers()
}

// deliver brings a late request to the store; nobody waits for its answer.
func (s *sim) deliver(h *host) {
	if len(h.late) == 0 {
		return
	}
	a := h.late[0]
	h.late = h.late[1:]
	s.say("%s: %s %s arrives late", h.name, a.Verb, a.Key)
	s.exec(a)
}

// restart forgets what a process knows and keeps subnet.env.
func (s *sim) restart(h *host) {
	if h.state.Own.Subnet.IsValid() {
		h.want.Previous, h.want.PreviousV6 = h.state.Own.Subnet, h.state.Own.SubnetV6
	}
	s.say("%s: restart, was %s", h.name, h.state.Phase)
	h.read = s.restores // it believes in nothing
	h.state, h.view, h.doing, h.answer = claim.State{}, &claim.View{}, nil, nil
}

// injure does from outside what a lease cannot know of.
func (s *sim) injure(h *host) {
	s.harm++
	switch s.rnd.IntN(6) {
	case 5:
		if h.state.Phase == claim.Held && h.state.EtcdLease != 0 {
			s.say("%s: etcd lease revoked", h.name)
			s.store.Exec(claim.Action{Verb: claim.Revoke, EtcdLease: h.state.EtcdLease})
		}
	case 4:
		c := s.configs[s.rnd.IntN(len(s.configs))]
		s.say("config: %s", c)
		s.store.Put(claim.ConfigKey, c, 0)
	case 0:
		if h.state.Phase == claim.Held {
			s.say("%s: key deleted", h.name)
			s.store.Delete(claim.Subnets + lease.Key(h.state.Own))
		}
	case 1:
		b := s.store.Backup()
		s.backup = &b
	case 2:
		if s.backup != nil {
			s.say("store restored to %d", s.backup.rev)
			s.store.Restore(*s.backup)
		}
	case 3:
		s.now = s.now.Add(30 * time.Hour)
		s.say("thirty hours later")
	}
}

// settle heals everything and lets the hosts run until nobody has anything to do; then everyone must hold a subnet of its
// own, and its first one unless somebody else has that.
func (s *sim) settle() {
	s.t.Helper()
	for _, h := range s.hosts {
		h.cut = false
		for len(h.late) > 0 {
			s.deliver(h)
		}
	}
	for round, quiet := 0, 0; round < 200 && quiet < 4; round++ {
		busy := false
		for _, h := range s.hosts {
			s.sync(h, false)
			busy = s.act(h, false) || busy || h.state.Phase != claim.Held
		}
		s.now = s.now.Add(30 * time.Second)
		quiet++
		if busy {
			quiet = 0
		}
	}
	owner := map[netip.Prefix]*host{}
	for _, h := range s.hosts {
		s.sync(h, false)
		r, ok := h.view.Record(lease.Key(h.state.Own))
		if h.state.Phase != claim.Held || !ok || r.Lease.VTEPMAC != h.want.Self.VTEPMAC {
			s.fatalf("%s: %s %s, the store has %+v", h.name, h.state.Phase, lease.Key(h.state.Own), r)
		}
		if netip.MustParsePrefix("172.17.0.0/16").Overlaps(h.state.Own.Subnet) {
			s.fatalf("%s holds %s, inside the underlay", h.name, h.state.Own.Subnet)
		}
		owner[h.state.Own.Subnet] = h
	}
	if len(owner) != len(s.hosts) {
		s.fatalf("%d hosts hold %d subnets", len(s.hosts), len(owner))
	}
}

// TestConfigChanges changes the subnet length and the families all the time: every host moves, and no two keys overlap on
// the way.
func TestConfigChanges(t *testing.T) {
	for seed := range uint64(40 * *deep) {
		s := newSim(t, seed, 6)
		s.harm++
		for i, c := range s.configs { // few subnets, so that the hosts get into each other's way
			s.configs[i] = strings.ReplaceAll(c, "172.16.0.0/12", "172.16.0.0/18")
		}
		for range 900 {
			h := s.hosts[s.rnd.IntN(len(s.hosts))]
			switch n := s.rnd.IntN(40); {
			case n == 0:
				s.store.Put(claim.ConfigKey, s.configs[s.rnd.IntN(len(s.configs))], 0)
			case n < 3:
				s.restart(h)
			case n < 10:
				s.sync(h, true)
			case n < 20:
				s.deliver(h)
			default:
				s.act(h, true)
			}
			s.now = s.now.Add(time.Duration(s.rnd.IntN(500)) * time.Millisecond)
			s.check()
		}
		s.settle()
		for _, h := range s.hosts {
			for _, v6 := range []bool{false, true} {
				r, p := h.view.Config.Range(v6), lease.Subnet(h.state.Own, v6)
				if r.Network.IsValid() != p.IsValid() || (p.IsValid() && r.Fits(p) != nil) {
					s.fatalf("%s holds %s: %v", h.name, p, r.Fits(p))
				}
			}
		}
	}
}

// TestOneKey: whatever gets lost or comes late, no host has more than one key in the end, as long as it is not restarted.
func TestOneKey(t *testing.T) {
	for seed := range uint64(10 * *deep) {
		s := newSim(t, seed, 6)
		for range 300 {
			h := s.hosts[s.rnd.IntN(len(s.hosts))]
			switch s.rnd.IntN(4) {
			case 0:
				s.sync(h, true)
			case 1:
				s.deliver(h)
			default:
				s.act(h, true)
			}
			s.now = s.now.Add(time.Duration(s.rnd.IntN(500)) * time.Millisecond)
		}
		s.settle()
		if n := len(s.store.Snapshot().Entries); n != 1+len(s.hosts) {
			s.fatalf("%d hosts have %d keys", len(s.hosts), n-1)
		}
	}
}

// TestFiftyHosts lets fifty hosts start at once: each has a subnet of its own in the end, and all stay where they are when
// they all restart.
func TestFiftyHosts(t *testing.T) {
	for seed := range uint64(*deep) {
		s := newSim(t, seed, 50)
		for range 4000 {
			h := s.hosts[s.rnd.IntN(len(s.hosts))]
			if s.rnd.IntN(2) == 0 {
				s.sync(h, false)
			} else {
				s.act(h, false)
			}
			s.check()
		}
		s.settle()
		before := map[string]netip.Prefix{}
		for _, h := range s.hosts {
			before[h.name] = h.state.Own.Subnet
			s.restart(h)
			h.want.Previous = netip.Prefix{} // the PublicIP alone is enough
		}
		s.settle()
		for _, h := range s.hosts {
			if h.state.Own.Subnet != before[h.name] {
				t.Fatalf("%s had %s, after its restart %s", h.name, before[h.name], h.state.Own.Subnet)
			}
		}
	}
}
