package claim

import (
	"slices"

	"weft/internal/api"
	"weft/internal/lease"
)

// Delta is how the list of Peers changed.
type Delta struct{ Gone, Fresh []api.Lease }

// touch is one record as it was when the peers were last worked out, and as it is now; nil where there is none.
type touch struct{ old, now *Record }

// touch notes a change of a record.
func (v *View) touch(key string, old, now *Record) {
	if v.whole {
		return
	}
	if t, ok := v.touched[key]; ok {
		old = t.old
	}
	if v.touched == nil {
		v.touched = map[string]touch{}
	}
	v.touched[key] = touch{old, now}
}

// looked forgets what was touched: everything is in the list of peers.
func (v *View) looked(clash bool) {
	v.whole, v.clash, v.touched = false, clash, nil
}

// Delta returns how the peers changed since Peers or Delta was asked last with the same own lease and host routes, at a cost that
// depends on what changed. ok is false when that takes a look at all of them: Peers has to be asked.
func (v *View) Delta(own api.Lease, avoid []HostRoute) (d Delta, ok bool) {
	ownKey := lease.Key(own)
	avoid = v.relevant(own, avoid)
	if !v.small(avoid) {
		return Delta{}, false
	}
	for key, t := range v.touched {
		if key == ownKey {
			return Delta{}, false
		}
		if t.old != nil {
			if v.pathless(t.old, own, avoid) {
				return Delta{}, false
			}
			d.Gone = append(d.Gone, v.project(t.old.Lease))
		}
		if t.now != nil {
			if v.pathless(t.now, own, avoid) || v.overlapped(t.now) {
				return Delta{}, false
			}
			d.Fresh = append(d.Fresh, v.project(t.now.Lease))
		}
		if n, m := len(d.Gone), len(d.Fresh); t.old != nil && t.now != nil && d.Gone[n-1] == d.Fresh[m-1] {
			d.Gone, d.Fresh = d.Gone[:n-1], d.Fresh[:m-1] // a renewal
		}
	}
	v.touched = nil
	return d, true
}

// small says whether a change of one lease can be looked at alone.
func (v *View) small(avoid []HostRoute) bool {
	if v.whole || v.clash || !v.HasConfig || !v.Config.EnableIPv4 {
		return false
	}
	// Whose the gateway of a host's route is may decide about any lease.
	return !slices.ContainsFunc(avoid, func(h HostRoute) bool { return h.Via.IsValid() })
}

// pathless says whether a record, alone, is no peer.
func (v *View) pathless(r *Record, own api.Lease, avoid []HostRoute) bool {
	_, why := v.refusal(r, own, avoid)
	return why != "" || r.Idle(v.Config)
}

// overlapped reports whether a record shares addresses with another one. Among those that can be read no two others do, or the last
// look would have said so; so the nearest ones by address tell.
func (v *View) overlapped(r *Record) bool {
	at, _ := slices.BinarySearchFunc(v.order, r, byAddress)
	for _, step := range []int{-1, 1} {
		for i := at + step; i >= 0 && i < len(v.order); i += step {
			if o := v.order[i]; overlap(o.Lease.Subnet, r.Lease.Subnet) {
				return true
			} else if o.Refused == "" && o.misfit == "" {
				break
			}
		}
	}
	if !r.Lease.SubnetV6.IsValid() {
		return false
	}
	return slices.ContainsFunc(v.order, func(o *Record) bool { return o != r && overlap(o.Lease.SubnetV6, r.Lease.SubnetV6) })
}
