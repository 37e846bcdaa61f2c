package claim

import (
	"fmt"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/lease"
)

// Next decides what to do now. It looks at the state, the view and the want as they are, not at what happened, so it may be
// called as often as one likes. Notes are for the log; the same one is not given twice in a row.
func (s State) Next(now time.Time, v *View, w Want, rnd func(int) int) (State, Action, []string) {
	n := next{State: s, now: now, v: v, w: w, rnd: rnd}
	a := n.decide()
	return n.State, a, n.notes
}

// next is one decision being made.
type next struct {
	State
	now   time.Time
	v     *View
	w     Want
	rnd   func(int) int
	notes []string
}

func (n *next) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	n.trouble = text
	if text != n.told {
		n.told = text
		n.notes = append(n.notes, text)
	}
}

func (n *next) decide() Action {
	if n.v.Epoch != n.epoch {
		// Another history: revisions of the old one mean nothing.
		n.epoch, n.after = n.v.Epoch, 0
	}
	switch {
	case n.now.Before(n.notBefore):
		return Action{Until: n.notBefore}
	case len(n.orphans) > 0:
		return Action{Verb: Revoke, EtcdLease: n.orphans[0]}
	case n.v.Revision == 0, n.v.Revision < n.after:
		return Action{}
	case !n.v.HasConfig && n.v.ConfigErr != "":
		n.note("%s: correct it with \"weft network apply -f net-conf.json\"", n.v.ConfigErr)
		return Action{}
	case !n.v.HasConfig:
		n.note("the store holds no network config: write one with \"weft network apply -f net-conf.json\"")
		return Action{}
	}
	if n.Phase == Held {
		if a, ok := n.hold(); ok {
			return a
		}
	}
	return n.seek()
}

// hold looks after a lease that is held. ok is false when another one has to be sought.
func (n *next) hold() (a Action, ok bool) {
	r, there := n.v.Record(n.key)
	want := n.wanted()
	switch {
	case !there:
		n.note("lease %s is gone from the store (deleted or expired): forwarding goes on, acquiring it again", n.key)
		n.Phase = Lost
		return Action{}, false
	case r.Refused != "":
		return n.overwritten(r), true
	case sameLease(r.Lease, want):
		n.Own = withExpiry(want, n.Expiry)
	case sameLease(r.Lease, n.Own):
	case samePublic(n.v.Config, r.Lease, n.Own), samePublic(n.v.Config, r.Lease, want):
		return n.overwritten(r), true
	default:
		n.note("lease %s belongs to %s now: acquiring another subnet", n.key, holder(r.Lease))
		n.Phase = Lost
		return Action{}, false
	}
	n.adopt(r)
	if !n.Permanent && !n.now.Before(n.renewAt) {
		n.overdue()
		return Action{Verb: Extend, Key: n.key, EtcdLease: n.EtcdLease}, true
	}
	if n.misplaced(r) {
		return Action{}, false
	}
	if !sameLease(want, n.Own) {
		_, err := lease.Marshal(want)
		if err == nil {
			return n.update(r, "the host's own data changed"), true
		}
		n.note("keeping lease %s as it is: %v", n.key, err)
		return Action{Until: n.renewAt}, true
	}
	n.quiet()
	return Action{Until: n.renewAt}, true
}

// quiet ends the trouble there was, but for what is still there: a host route in the way of the lease, a fight that may flare up again.
func (n *next) quiet() {
	h, ok := Obstacle(n.v.Config, n.w.Avoid, n.Own.Subnet, n.Own.SubnetV6)
	switch {
	case ok:
		n.note("lease %s overlaps the host's own route %s, which was made later: packets go by the more specific of the two; remove the route",
			n.key, h)
	case n.fights == 0 || n.now.Sub(n.fightAt) > fightForget:
		n.told, n.trouble = "", ""
	}
}

// overdue says so when the lease may have run out unnoticed.
func (n *next) overdue() {
	if !n.Expiry.IsZero() && !n.now.Before(n.Expiry) {
		n.note("lease %s could not be renewed before %s: forwarding goes on, but the store may give the subnet to another host",
			n.key, n.Expiry.UTC().Format(time.RFC3339))
	}
}

// adopt takes note of a put of our key that says what we say: another etcd lease, none (it was made a reservation), another
// history. How long the other etcd lease lasts is not known, so it is extended at once.
func (n *next) adopt(r Record) {
	if r.EtcdLease != n.EtcdLease || r.Created != n.created {
		n.renewAt = n.now
	}
	n.EtcdLease, n.Permanent = r.EtcdLease, r.Reserved()
	n.created, n.modified = r.Created, r.Modified
	if n.Permanent {
		n.Expiry, n.renewAt, n.Own.Expiry = time.Time{}, time.Time{}, time.Time{}
	}
}

// misplaced says whether the held subnet can no longer be: the network was changed, or a lease that was there before
// overlaps it.
func (n *next) misplaced(r Record) bool {
	for _, v6 := range []bool{false, true} {
		p, in := lease.Subnet(n.Own, v6), n.v.Config.Range(v6)
		if p.IsValid() != in.Network.IsValid() {
			n.note("lease %s does not have the address families of the network any more: acquiring one that has", n.key)
			return true
		}
		if p.IsValid() && in.Fits(p) != nil {
			n.note("lease %s does not fit the network any more (%v): acquiring another", n.key, in.Fits(p))
			return true
		}
	}
	for _, other := range n.v.around(n.Own) {
		if other.Key != n.key && !other.Gone && other.Created < r.Created {
			n.note("lease %s overlaps %s of %s, which was there before: acquiring another", n.key, other.Key, holder(other.Lease))
			return true
		}
	}
	return false
}

// overwritten answers somebody else's put of our key: what we say is put again, later each time.
func (n *next) overwritten(r Record) Action {
	if n.now.Sub(n.fightAt) > fightForget {
		n.fights = 0
	}
	if r.Modified != n.modified {
		n.modified = r.Modified
		wait := min(fightFirst<<min(n.fights, 16), fightMax)
		n.fights, n.fightAt, n.fightUntil = n.fights+1, n.now, n.now.Add(wait)
		if r.Refused != "" {
			n.note("lease %s was overwritten with what cannot be read (%s): written again in %s", n.key, r.Refused, wait)
		} else {
			n.note("lease %s was overwritten under our public address %s (VTEP %s instead of %s, time %d): another host uses this "+
				"address, or flannel still runs here; written again in %s", n.key, holder(r.Lease), mac(r.Lease.VTEPMAC),
				mac(n.Own.VTEPMAC), n.fights, wait)
		}
	}
	if n.now.Before(n.fightUntil) {
		return Action{Until: n.fightUntil}
	}
	return n.update(r, "somebody else wrote our key")
}

func mac(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (n *next) update(r Record, why string) Action {
	want := n.wanted()
	if _, err := lease.Marshal(want); err != nil {
		want = n.Own
	}
	return Action{
		Verb: Update, Key: n.key, Lease: want, Permanent: r.Reserved(), Modified: r.Modified, EtcdLease: r.EtcdLease, Why: why,
	}
}

// wanted is what the others shall read, under the subnets we have.
func (n *next) wanted() api.Lease {
	l := n.w.Self
	l.Subnet, l.SubnetV6 = n.Own.Subnet, n.Own.SubnetV6
	return l
}

// seek acquires a lease: the same subnet again when there was one.
func (n *next) seek() Action {
	q := Request{
		Config: n.v.Config, Records: n.v.Records(), Self: n.w.Self, Previous: n.w.Previous, PreviousV6: n.w.PreviousV6,
		Avoid: n.w.Avoid, Rand: n.rnd,
	}
	if n.Phase != Seeking {
		q.Previous, q.PreviousV6 = n.Own.Subnet, n.Own.SubnetV6
	}
	if n.Phase == Held {
		q.Own = n.key
	}
	d, err := Choose(q)
	if err != nil {
		n.note("%v", err)
		return Action{Until: n.later()}
	}
	if _, err := lease.Marshal(d.Lease); err != nil {
		n.note("cannot announce a lease: %v", err)
		return Action{Until: n.later()}
	}
	a := Action{
		Verb: Claim, Key: lease.Key(d.Lease), Lease: d.Lease, Permanent: d.Permanent, Delete: d.Delete, Why: d.Why,
		ConfigRevision: n.v.ConfigRevision, Revision: n.v.Revision, Guard: guard(d.Lease),
	}
	if d.Take != nil {
		a.Verb, a.Modified, a.Created = TakeOver, d.Take.Modified, d.Take.Created
	}
	return a
}

// later is when to look again though nothing has changed: soon, or when the lease we have is due.
func (n *next) later() time.Time {
	t := n.now.Add(retryMax)
	if n.Phase == Held && !n.Permanent && n.renewAt.Before(t) {
		return n.renewAt
	}
	return t
}

// guard is the beginning of the keys whose creation makes a claim void. Leases of one config have one length, so an IPv4
// claim only minds keys with the same leading whole bytes; the IPv6 part is the second half of a key, so there it is all.
func guard(l api.Lease) string {
	if l.SubnetV6.IsValid() {
		return ""
	}
	whole := l.Subnet.Bits() / 8
	return strings.Join(strings.Split(l.Subnet.Addr().String(), ".")[:whole], ".") + "."[:min(whole, 1)]
}
