package claim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/lease"
)

// Refusal is a lease of the store that is not acted on.
type Refusal struct {
	Key, Value string
	Kind       string // in one word, for counting: one of the constants
	Reason     string // names the field, the value and the way out
}

// The kinds of refusals.
const (
	Malformed   = "malformed"  // key or value cannot be read
	Outside     = "outside"    // not in the network
	Overlapping = "overlap"    // with the lease of another host, which was there before
	OwnSubnet   = "own-subnet" // with this host's own lease
	InTheWay    = "host-route" // with a route of this host that is not the overlay's
)

// Peers returns the leases of the other hosts that may be programmed, by address, and those that may not, by key. own is the
// host's lease (zero: none yet), whose record is left out. Refused are: keys and values that cannot be read, subnets outside
// the network, subnets that take addresses away from the host's own routes (avoid, as in Request; an overlay's routes to
// the very subnet by way of a host of the network are none of them), and of two leases that
// overlap the later one. Reservations that nobody has taken up are in neither.
func (v *View) Peers(own api.Lease, avoid []HostRoute) ([]api.Lease, []Refusal) {
	if !v.HasConfig {
		return nil, nil
	}
	ownKey := lease.Key(own)
	var refused []Refusal
	good := make([]*Record, 0, len(v.order))
	avoid = v.relevant(own, avoid)
	for _, r := range v.order {
		if r.Key == ownKey {
			continue
		}
		if kind, why := v.refusal(r, own, avoid); why != "" {
			refused = append(refused, Refusal{Key: r.Key, Value: r.value, Kind: kind, Reason: why})
			continue
		}
		if r.Idle(v.Config) {
			continue // there is nobody to send to
		}
		good = append(good, r)
	}
	good, later := dropOverlaps(good)
	v.looked(len(later) > 0)
	refused = append(refused, later...)
	peers := make([]api.Lease, len(good))
	for i, r := range good {
		peers[i] = v.project(r.Lease)
	}
	slices.SortFunc(refused, func(a, b Refusal) int { return cmp.Compare(a.Key, b.Key) })
	return peers, refused
}

// project leaves out the family the network does not use.
func (v *View) project(l api.Lease) api.Lease {
	if !v.Config.EnableIPv4 {
		l.Subnet, l.VTEPMAC = netip.Prefix{}, ""
	}
	if !v.Config.EnableIPv6 {
		l.SubnetV6, l.VTEPMACv6 = netip.Prefix{}, ""
	}
	return l
}

// relevant leaves the host routes that conflict with the network and are not the host's own subnet's.
func (v *View) relevant(own api.Lease, avoid []HostRoute) []HostRoute {
	var out []HostRoute
	for _, h := range avoid {
		p, v6 := h.Dst, h.Dst.Addr().Is6()
		mine := lease.Subnet(own, v6)
		if r := v.Config.Range(v6); r.Network.IsValid() && conflicts(p, r.Network) &&
			(!mine.IsValid() || mine.Bits() > p.Bits() || !mine.Contains(p.Addr())) {
			out = append(out, h)
		}
	}
	return out
}

// refusal says in a word and in a sentence why a record is not acted on, "" when it is.
func (v *View) refusal(r *Record, own api.Lease, avoid []HostRoute) (kind, why string) {
	switch {
	case r.Refused != "":
		return Malformed, r.Refused
	case r.misfit != "":
		return Outside, r.misfit
	case overlaps(r.Lease, own):
		return OwnSubnet, fmt.Sprintf("lease %s of %s: overlaps this host's own %s: delete one of them", r.Key, holder(r.Lease), lease.Key(own))
	}
	for _, h := range avoid {
		if overlap(lease.Subnet(r.Lease, h.Dst.Addr().Is6()), h.Dst) && !h.OfOverlay(r.Lease, v.isHost) {
			return InTheWay, fmt.Sprintf("lease %s of %s: overlaps this host's own route %s: move the lease or remove the route",
				r.Key, holder(r.Lease), h)
		}
	}
	return "", ""
}

// dropOverlaps refuses, of two records that overlap, the one created later. all is by address.
func dropOverlaps(all []*Record) ([]*Record, []Refusal) {
	if !clash(all, false) {
		var six []*Record
		for _, r := range all {
			if r.Lease.SubnetV6.IsValid() {
				six = append(six, r)
			}
		}
		slices.SortFunc(six, func(a, b *Record) int { return a.Lease.SubnetV6.Compare(b.Lease.SubnetV6) })
		if !clash(six, true) {
			return all, nil
		}
	}
	// Rare: somebody else's claims raced, or the subnet length changed under them.
	old := slices.SortedStableFunc(slices.Values(all), func(a, b *Record) int { return cmp.Compare(a.Created, b.Created) })
	var kept []*Record
	var refused []Refusal
	var taken prefixSet
	for _, r := range old {
		if taken.overlaps(r.Lease.Subnet) || taken.overlaps(r.Lease.SubnetV6) {
			refused = append(refused, Refusal{Key: r.Key, Value: r.value, Kind: Overlapping, Reason: fmt.Sprintf(
				"lease %s of %s: overlaps a lease that was there before: delete one of them", r.Key, holder(r.Lease))})
			continue
		}
		taken.add(r.Lease.Subnet)
		taken.add(r.Lease.SubnetV6)
		kept = append(kept, r)
	}
	slices.SortFunc(kept, byAddress)
	return kept, refused
}

// clash says whether any two of all overlap in one family; all is by that family's address, so it is two neighbours that do.
func clash(all []*Record, v6 bool) bool {
	for i := 1; i < len(all); i++ {
		if overlap(lease.Subnet(all[i-1].Lease, v6), lease.Subnet(all[i].Lease, v6)) {
			return true
		}
	}
	return false
}

// prefixSet answers whether a prefix overlaps one of a set without looking at all of them.
type prefixSet struct {
	in    map[netip.Prefix]bool
	above map[netip.Prefix]bool // every prefix that contains one of in
}

func (s *prefixSet) add(p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	if s.in == nil {
		s.in, s.above = map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
	}
	s.in[p] = true
	for bits := range p.Bits() {
		s.above[netip.PrefixFrom(p.Addr(), bits).Masked()] = true
	}
}

func (s *prefixSet) overlaps(p netip.Prefix) bool {
	if !p.IsValid() {
		return false
	}
	for bits := range p.Bits() + 1 {
		if s.in[netip.PrefixFrom(p.Addr(), bits).Masked()] {
			return true
		}
	}
	return s.above[p]
}
