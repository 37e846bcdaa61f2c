package claim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/lease"
)

// Request is everything the choice of a subnet looks at.
type Request struct {
	Config  lease.Config
	Records []Record
	Self    api.Lease // what the host tells the others; Subnet and SubnetV6 are asked for, zero: any
	Own     string    // key the host holds at the moment, "" at start

	// Previous is what the host had before, from subnet.env.
	Previous, PreviousV6 netip.Prefix

	// Avoid lists the host's routes and addresses that a subnet must not overlap, without those of the overlay itself.
	// A route wider than the network does not count: the subnet is the more specific one. What lies inside the host's own
	// old subnet does not count either.
	Avoid []HostRoute

	Rand func(n int) int // a number from 0 to n-1
}

// Decision is a subnet to take.
type Decision struct {
	Lease     api.Lease // Self with the subnets
	Take      *Record   // the lease is in the store already: take it over; nil: claim it
	Permanent bool      // it is a reservation and stays one
	Delete    []Record  // leases of ours that cannot be used or are replaced; they go in the same transaction
	Why       string    // where the subnet came from, for the log
}

// blocker is a prefix that a subnet must not overlap.
type blocker struct {
	prefix netip.Prefix
	why    string
}

// Choose picks the subnet of each family, in this order: the one asked for, that of a lease with our PublicIP, the previous
// one, a random one of the first hundred that are free. The error says why there is none, in one line.
func Choose(q Request) (Decision, error) {
	mine := q.mine()
	d := Decision{Lease: q.Self}
	d.Lease.Subnet, d.Lease.SubnetV6 = netip.Prefix{}, netip.Prefix{}
	var blocked []blocker
	for _, v6 := range []bool{false, true} {
		if !q.Config.Range(v6).Network.IsValid() {
			continue
		}
		b := q.blocked(mine, v6)
		p, why, err := q.pick(mine, b, v6)
		if err != nil {
			return Decision{}, err
		}
		if v6 {
			d.Lease.SubnetV6 = p
		} else {
			d.Lease.Subnet = p
		}
		d.Why = why
		blocked = append(blocked, b...)
	}
	if !d.Lease.Subnet.IsValid() && !d.Lease.SubnetV6.IsValid() {
		return Decision{}, fmt.Errorf("choose a subnet: the network config enables no address family")
	}
	q.settle(&d, mine, blocked)
	return d, nil
}

// settle sorts out our leases in the store: which one is taken over, which ones go.
func (q Request) settle(d *Decision, mine []Record, blocked []blocker) {
	key := lease.Key(d.Lease)
	for _, r := range mine {
		switch {
		case r.Gone: // nothing there to take or delete
		case r.Key == key:
			d.Take, d.Permanent = &r, d.Permanent || r.Reserved()
		case overlaps(r.Lease, d.Lease):
			d.Delete, d.Permanent = append(d.Delete, r), d.Permanent || r.Reserved()
		case !r.Reserved() && (r.Key == q.Own || !q.usable(r.Lease, blocked)):
			d.Delete = append(d.Delete, r)
		}
	}
}

// mine returns our leases: with our PublicIP, held under our key, or with our previous subnet and our VTEP's address (the
// host's address changed while it was down). Reservations come first, then the previous subnet, then by address.
func (q Request) mine() []Record {
	var out []Record
	for _, r := range q.Records {
		if r.Refused == "" && (r.Key == q.Own || q.sameHost(r.Lease)) {
			out = append(out, r)
		}
	}
	rank := func(r Record) int {
		switch {
		case r.Key == q.Own:
			return 0
		case r.Reserved():
			return 1
		case r.Lease.Subnet == q.Previous && r.Lease.SubnetV6 == q.PreviousV6:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(out, func(a, b Record) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Lease.Subnet.Compare(b.Lease.Subnet), cmp.Compare(a.Key, b.Key))
	})
	return out
}

func (q Request) sameHost(l api.Lease) bool {
	if samePublic(q.Config, l, q.Self) {
		return true
	}
	previous := q.Previous.IsValid() && l.Subnet == q.Previous || q.PreviousV6.IsValid() && l.SubnetV6 == q.PreviousV6
	return previous && q.Self.VTEPMAC != "" && l.VTEPMAC == q.Self.VTEPMAC
}

// samePublic says whether two leases are of one host, as flannel tells: by the IPv4 address, in a network without IPv4 by
// the other.
func samePublic(c lease.Config, a, b api.Lease) bool {
	if c.EnableIPv4 {
		return a.PublicIP.IsValid() && a.PublicIP == b.PublicIP
	}
	return a.PublicIPv6.IsValid() && a.PublicIPv6 == b.PublicIPv6
}

// blocked lists what a subnet of ours must not overlap.
func (q Request) blocked(mine []Record, v6 bool) []blocker {
	var out []blocker
	for _, r := range q.Records {
		if p := lease.Subnet(r.Lease, v6); p.IsValid() && !slices.Contains(mine, r) {
			out = append(out, blocker{p, fmt.Sprintf("the lease %s of %s", r.Key, holder(r.Lease))})
		}
		out = appendPublic(out, r.Lease, v6)
	}
	out = appendPublic(out, q.Self, v6)
	network := q.Config.Range(v6).Network
	for _, h := range q.Avoid {
		p := h.Dst
		if conflicts(p, network) && !slices.ContainsFunc(q.old(mine, v6), func(own netip.Prefix) bool {
			return own.IsValid() && own.Bits() <= p.Bits() && own.Contains(p.Addr())
		}) {
			out = append(out, blocker{p.Masked(), fmt.Sprintf("the host's route %s", h)})
		}
	}
	return out
}

// conflicts says whether a route or address of the host takes addresses away from the network: a wider route does not.
func conflicts(p, network netip.Prefix) bool {
	return p.Overlaps(network) && p.Bits() >= network.Bits()
}

// old lists the subnets the host had, whose routes and addresses are its own.
func (q Request) old(mine []Record, v6 bool) []netip.Prefix {
	out := []netip.Prefix{q.Previous}
	if v6 {
		out[0] = q.PreviousV6
	}
	for _, r := range mine {
		out = append(out, lease.Subnet(r.Lease, v6))
	}
	return out
}

func appendPublic(out []blocker, l api.Lease, v6 bool) []blocker {
	a := l.PublicIP
	if v6 {
		a = l.PublicIPv6
	}
	if !a.IsValid() {
		return out
	}
	return append(out, blocker{netip.PrefixFrom(a, a.BitLen()), "the public address " + a.String()})
}

func holder(l api.Lease) string {
	switch {
	case l.PublicIP.IsValid():
		return l.PublicIP.String()
	case l.PublicIPv6.IsValid():
		return l.PublicIPv6.String()
	}
	return "an unknown host"
}

// usable says whether a lease may be held as it is: it fits the network in every family and nothing is in its way.
func (q Request) usable(l api.Lease, blocked []blocker) bool {
	for _, v6 := range []bool{false, true} {
		r, p := q.Config.Range(v6), lease.Subnet(l, v6)
		if r.Network.IsValid() != p.IsValid() {
			return false
		}
		if p.IsValid() && (r.Fits(p) != nil || inTheWay(p, blocked) != "") {
			return false
		}
	}
	return true
}

// inTheWay says what overlaps p, "" when nothing does.
func inTheWay(p netip.Prefix, blocked []blocker) string {
	for _, b := range blocked {
		if b.prefix.Overlaps(p) {
			return b.why
		}
	}
	return ""
}

// pick chooses the subnet of one family.
func (q Request) pick(mine []Record, blocked []blocker, v6 bool) (netip.Prefix, string, error) {
	r := q.Config.Range(v6)
	if asked := lease.Subnet(q.Self, v6); asked.IsValid() {
		if err := r.Fits(asked); err != nil {
			return netip.Prefix{}, "", fmt.Errorf("asked-for %w", err)
		}
		if why := inTheWay(asked, blocked); why != "" {
			return netip.Prefix{}, "", fmt.Errorf("asked-for subnet %s: overlaps %s: ask for another", asked, why)
		}
		return asked, "asked for", nil
	}
	old := q.old(mine, v6)
	for i, p := range append(old[1:], old[0]) {
		if p.IsValid() && r.Fits(p) == nil && inTheWay(p, blocked) == "" {
			if i < len(mine) {
				return p, "lease with our public address", nil
			}
			return p, "held before", nil
		}
	}
	prefixes := make([]netip.Prefix, len(blocked))
	for i, b := range blocked {
		prefixes[i] = b.prefix
	}
	all := free(r, prefixes, choices)
	if len(all) == 0 {
		return netip.Prefix{}, "", fmt.Errorf("no free subnet in %s to %s /%d: every one is leased or in the way of a host route: "+
			"widen the network or delete leases nobody uses", r.Min, r.Max, r.SubnetLen)
	}
	return all[q.Rand(len(all))], "free", nil
}
