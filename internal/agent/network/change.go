package network

import (
	"reflect"
	"slices"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
)

// basis is what a step planned from.
type basis struct {
	setting facts.Setting
	peers   []api.Lease // without the own lease
	open    map[ways.Kind]bool
	unmet   int // hosts without a session, of an encrypted backend that is prepared
}

// meetEvery is how often it is looked whether all sessions are there.
const meetEvery = 50 * time.Millisecond

// meet counts the hosts without a session while an encrypted backend is prepared, and sees to it that there will be one: the first packets
// under the new backend must not wait for it.
func (d *Loop) meet(b basis, host netstate.State) (unmet int, err error) {
	if o := b.setting.Other; o == nil || !o.Next || o.Backend != lease.WireGuard {
		return 0, nil
	}
	if unmet, err = d.tunnels.Unmet(host, b.setting.Backend == lease.WireGuard); unmet > 0 {
		time.AfterFunc(meetEvery, func() { loop.Poke(d.again) })
	}
	return unmet, err
}

// done notes what the node now receives by, and tells when others want to know.
func (d *Loop) done(b basis) {
	before := d.told
	d.told = b
	if b.setting.Other != nil {
		d.leftover = leftover{} // of the change before
	}
	if b.setting.Other == nil && before.setting.Other == nil {
		return
	}
	if !reflect.DeepEqual(before.setting.Other, b.setting.Other) || before.setting.Announced != b.setting.Announced ||
		(before.unmet == 0) != (b.unmet == 0) || !slices.Equal(before.peers, b.peers) {
		loop.Poke(d.heard)
	}
}

// Announcement is what the node with the lease self tells the others: what a step made ready, and nothing else. ok is false before the
// first step: what the node told at its start holds.
func (d *Loop) Announcement(self api.Lease, f facts.Facts) (l api.Lease, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case f.Other == nil:
		return lease.Announce(self), true
	case d.told.open == nil:
		return l, false
	case !d.told.open[ways.OtherKind(f)]:
		return lease.Announce(self), true
	}
	same := d.told.setting.Announced == self && reflect.DeepEqual(d.told.setting.Other, f.Other)
	// Early: the step that knows of the change did not work yet, or sessions are missing.
	return ways.Announced(f, self, d.told.peers, !same || d.told.unmet > 0), true
}

// Receives reports whether the last step that worked made the node receive by the kind.
func (d *Loop) Receives(k ways.Kind) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.told.open[k]
}

// emptied is how long a tunnel in user space stays after a change led away from it: what the hosts sent last waits in queues of the TUN
// device, of the sockets and of the workers, longer than the word that it was the last on a machine that has more to do than time.
const emptied = 2 * time.Second

// leftover is the tunnel in user space that a change led away from, for as long as packets may wait in it.
type leftover struct {
	facts.OtherBackend
	until time.Time
}

// besides are the facts to plan with: the host's, and what it just left.
func (d *Loop) besides(now time.Time, f facts.Facts) facts.Facts {
	if f.Other != nil || !now.Before(d.leftover.until) {
		return f
	}
	with := f
	with.Other = &d.leftover.OtherBackend
	if ways.OtherKind(with) == ways.InForce(f) {
		return f
	}
	return with
}

// left forgets the second backend of a change that has ended: every host said that it no longer sends by it, or never did. A tunnel in user
// space that was sent by stays for a moment. A kind that no change led away from lingers instead.
func (d *Loop) left(now time.Time, s facts.Setting, own api.Lease) {
	before := d.told.setting
	if before.Other == nil || s.Other != nil || ways.OtherKind(before.Facts) == ways.InForce(s.Facts) {
		return
	}
	k := ways.OtherKind(before.Facts)
	delete(d.kinds, k)
	if before.Other.Next || d.leftover.Left != nil || k.Type != lease.WireGuard && k.Type != lease.UDP {
		return
	}
	d.leftover = leftover{*before.Other, now.Add(emptied)}
	d.leftover.Left = ways.Told(before.Facts, append(slices.Clone(d.told.peers), before.Own(own)))
	time.AfterFunc(emptied, func() { loop.Poke(d.again) })
}
