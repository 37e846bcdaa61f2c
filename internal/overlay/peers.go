package overlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/netstate"
)

// Refusal says why a lease gets no path.
type Refusal struct {
	Lease  api.Lease
	Kind   string // in one word, for counting: one of the constants
	Reason string
}

// The kinds of refusals.
const (
	NoSubnet    = "malformed"
	Outside     = "outside"        // not in the network
	BadMAC      = "vtep-mac"       // not a host's, or another host's
	BadKey      = "public-key"     // another host's
	OwnAddress  = "public-address" // it is this node's
	Overlapping = "overlap"
	Unreachable = "unreachable" // its address is none that the backend can send to
)

// String is one line for the log.
func (r Refusal) String() string {
	subnet := r.Lease.Subnet
	if !subnet.IsValid() {
		subnet = r.Lease.SubnetV6
	}
	return fmt.Sprintf("lease %s of %s: %s", subnet, holder(r.Lease), r.Reason)
}

// holder names the host of a lease: by its node, else by its address.
func holder(l api.Lease) string {
	if l.Node == "" && !usable(l.PublicIP) {
		return l.PublicIPv6.String()
	}
	return cmp.Or(l.Node, l.PublicIP.String())
}

// usable reports whether packets can be sent to the address: flannel writes 0.0.0.0 where a node has no IPv4 address.
func usable(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// Peers returns the leases of other nodes that a backend plans for, sorted by subnet, and those refused. Two nodes given the same
// leases in any order refuse the same ones: of two overlapping subnets, or two hosts with one VTEP MAC or WireGuard key, the one with the lower public
// address stays, then the lower node name.
func Peers(self Self, leases []api.Lease) (peers []api.Lease, refused []Refusal) {
	peers = make([]api.Lease, 0, len(leases))
	for _, l := range leases {
		switch kind, reason := self.refuse(l); {
		case self.own(l):
		case reason != "":
			refused = append(refused, Refusal{l, kind, reason})
		default:
			l.Subnet, l.SubnetV6 = l.Subnet.Masked(), l.SubnetV6.Masked()
			peers = append(peers, l)
		}
	}
	bySubnet := func(a, b api.Lease) int {
		return cmp.Or(comparePrefix(a.Subnet, b.Subnet), comparePrefix(a.SubnetV6, b.SubnetV6))
	}
	if collide(self, peers) {
		var more []Refusal
		peers, more = choose(self, peers)
		refused = append(refused, more...)
	}
	slices.SortFunc(peers, bySubnet)
	return peers, refused
}

// collide reports whether any two subnets overlap or two hosts have the same VTEP MAC: rarely, so that choose is not often needed.
func collide(self Self, leases []api.Lease) bool {
	v4, v6 := make([]netip.Prefix, 0, len(leases)+1), make([]netip.Prefix, 0, len(leases)+1)
	v4, v6 = append(v4, self.Lease.Subnet.Masked()), append(v6, self.Lease.SubnetV6.Masked())
	hosts := make(identities, len(leases))
	for _, l := range leases {
		if _, twice := hosts.conflict(l); twice {
			return true
		}
		hosts.add(l)
		v4, v6 = append(v4, l.Subnet), append(v6, l.SubnetV6)
	}
	return overlapping(v4) || overlapping(v6)
}

// overlapping reports whether two of the prefixes overlap. One that holds another holds its neighbour in sorted order.
func overlapping(prefixes []netip.Prefix) bool {
	slices.SortFunc(prefixes, comparePrefix)
	for i := 1; i < len(prefixes); i++ {
		if prefixes[i-1].IsValid() && prefixes[i-1].Overlaps(prefixes[i]) {
			return true
		}
	}
	return false
}

// choose refuses leases until nothing collides.
func choose(self Self, candidates []api.Lease) (peers []api.Lease, refused []Refusal) {
	slices.SortFunc(candidates, func(a, b api.Lease) int {
		return cmp.Or(a.PublicIP.Compare(b.PublicIP), a.PublicIPv6.Compare(b.PublicIPv6), cmp.Compare(a.Node, b.Node),
			comparePrefix(a.Subnet, b.Subnet), comparePrefix(a.SubnetV6, b.SubnetV6), cmp.Compare(a.VTEPMAC, b.VTEPMAC))
	})
	taken, hosts := ranges{}, identities{}
	taken.add(self.Lease.Subnet, "this node")
	taken.add(self.Lease.SubnetV6, "this node")
	for _, l := range candidates {
		if holder := cmp.Or(taken.overlap(l.Subnet), taken.overlap(l.SubnetV6)); holder != "" {
			refused = append(refused, Refusal{l, Overlapping, "subnet overlaps that of " + holder})
			continue
		}
		if id, twice := hosts.conflict(l); twice {
			refused = append(refused, Refusal{l, id.kind(), id.String() + " is another host's"})
			continue
		}
		name := holder(l)
		taken.add(l.Subnet, name)
		taken.add(l.SubnetV6, name)
		hosts.add(l)
		peers = append(peers, l)
	}
	return peers, refused
}

// own reports whether the lease is the node's own, which needs no path.
func (s Self) own(l api.Lease) bool {
	return l.Subnet == s.Lease.Subnet && l.SubnetV6 == s.Lease.SubnetV6
}

// Refuses says why the lease alone gets no path, whatever the others are; "" when it may.
func (s Self) Refuses(l api.Lease) string {
	_, reason := s.refuse(l)
	return reason
}

// refuse says the same in a word and in a sentence.
func (s Self) refuse(l api.Lease) (kind, reason string) {
	switch {
	case !l.Subnet.IsValid() && !l.SubnetV6.IsValid():
		return NoSubnet, "no subnet"
	case !inside(l.Subnet, s.Network):
		return Outside, fmt.Sprintf("subnet %s is outside the network %s", l.Subnet, s.Network)
	case !inside(l.SubnetV6, s.NetworkV6):
		return Outside, fmt.Sprintf("subnet %s is outside the network %s", l.SubnetV6, s.NetworkV6)
	case l.VTEPMAC != "" && !netstate.HostMAC(l.VTEPMAC):
		return BadMAC, fmt.Sprintf("VTEP MAC %.40q is not the MAC of a host", l.VTEPMAC)
	case l.VTEPMACv6 != "" && !netstate.HostMAC(l.VTEPMACv6):
		return BadMAC, fmt.Sprintf("VTEP MAC %.40q is not the MAC of a host", l.VTEPMACv6)
	case l.PublicIP.IsValid() && !l.PublicIP.IsUnspecified() && l.PublicIP == s.Lease.PublicIP,
		l.PublicIPv6.IsValid() && l.PublicIPv6 == s.Lease.PublicIPv6:
		return OwnAddress, "public address is this node's own: one of the two hosts must change"
	}
	if id, same := shared(l, s.Lease); same {
		return id.kind(), id.String() + copied
	}
	return s.noOther(l)
}

// noOther refuses a lease whose public address is no other host's.
func (s Self) noOther(l api.Lease) (kind, reason string) {
	for _, a := range [...]netip.Addr{l.PublicIP, l.PublicIPv6} {
		switch {
		case !usable(a):
		case slices.Contains(s.Addrs, a):
			return OwnAddress, fmt.Sprintf("public address %s is one of this node's own: delete the lease if it is an earlier one of this node", a)
		case s.broadcast(a):
			return Unreachable, fmt.Sprintf("public address %s is no host's: it is the broadcast address of a network on %s", a, s.Dev)
		}
	}
	return "", ""
}

// broadcast reports whether the address is the last one of a connected IPv4 network, by which the kernel takes no route (RFC 3021: the two
// addresses of a /31 are hosts').
func (s Self) broadcast(a netip.Addr) bool {
	return a.Is4() && slices.ContainsFunc(s.Connected, func(p netip.Prefix) bool {
		next := a.Next()
		return p.Addr().Is4() && p.Bits() < 31 && p.Contains(a) && (!next.IsValid() || !p.Contains(next))
	})
}

// inside reports whether the subnet lies in the network; either may be zero: not given.
func inside(subnet, network netip.Prefix) bool {
	if !subnet.IsValid() || !network.IsValid() {
		return true
	}
	return subnet.Bits() >= network.Bits() && network.Contains(subnet.Addr())
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// ranges holds who has which subnet, so that an overlap is found without comparing all pairs: two prefixes overlap when one of them,
// cut to the other's length, is the other.
type ranges struct {
	exact   map[netip.Prefix]string // the subnets themselves
	above   map[netip.Prefix]string // every shorter prefix that holds one of them
	lengths [2][129]bool            // lengths in exact, by family
}

func (r *ranges) add(p netip.Prefix, holder string) {
	if !p.IsValid() {
		return
	}
	if r.exact == nil {
		r.exact, r.above = map[netip.Prefix]string{}, map[netip.Prefix]string{}
	}
	r.exact[p.Masked()] = holder
	r.lengths[family(p)][p.Bits()] = true
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		up := netip.PrefixFrom(p.Addr(), bits).Masked()
		if _, ok := r.above[up]; ok {
			break // and then all the shorter ones are there too
		}
		r.above[up] = holder
	}
}

// overlap returns the holder of a subnet that overlaps p, or "".
func (r *ranges) overlap(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	if h, ok := r.above[p.Masked()]; ok {
		return h
	}
	for bits := 0; bits <= p.Bits(); bits++ {
		if !r.lengths[family(p)][bits] {
			continue
		}
		if h, ok := r.exact[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return h
		}
	}
	return ""
}

func family(p netip.Prefix) int {
	if p.Addr().Is6() {
		return 1
	}
	return 0
}
