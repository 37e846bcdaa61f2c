package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"weft/internal/api"
)

// Two services may claim one address and port: the API allocates cluster addresses and NodePorts, but anybody may write any externalIPs, and a
// load balancer may give one address to several services. One of them gets it whole, so that no client is sent to the endpoints of either by
// chance: a service whose cluster address it is before all others, then the first by name.

// claim is an address, port and protocol that a service wants; a NodePort has no address.
type claim struct {
	at    netip.AddrPort
	proto api.Protocol
}

// claimant is a service port that claims something.
type claimant struct {
	name    api.ServicePortName
	cluster bool // as its cluster address
}

func (a claimant) compare(b claimant) int {
	if a.cluster != b.cluster {
		if a.cluster {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.name.Namespace, b.name.Namespace), cmp.Compare(a.name.Name, b.name.Name), cmp.Compare(a.name.Port, b.name.Port))
}

// Conflict is something that a service port claims and does not get.
type Conflict struct {
	At       netip.AddrPort // without address: a NodePort
	Protocol api.Protocol
	Loser    api.ServicePortName
	Winner   api.ServicePortName
}

// String says what is wrong and what to do.
func (c Conflict) String() string {
	at := "address " + c.At.String()
	if !c.At.Addr().IsValid() {
		at = "NodePort " + strconv.Itoa(int(c.At.Port()))
	}
	return "service " + c.Loser.String() + " does not get " + at + " (" + string(c.Protocol) + "): it is " + c.Winner.String() +
		"'s; give one of the two another"
}

// Claims knows which service ports claim what. The zero value knows none.
type Claims struct {
	first map[claim]claimant   // who gets it
	rest  map[claim][]claimant // who else wants it, sorted
}

// claims are what a service port claims, without repetitions.
func claims(s *api.ServicePort) []claim {
	out := make([]claim, 0, len(s.ClusterIPs)+len(s.External)+len(s.LoadBalancer)+1)
	add := func(a netip.Addr, port uint16) {
		if c := (claim{netip.AddrPortFrom(a, port), s.Protocol}); !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	for _, a := range s.ClusterIPs {
		add(a, s.Port)
	}
	for _, a := range s.External {
		add(a, s.Port)
	}
	for _, p := range s.LoadBalancer {
		add(p.Addr(), s.Port)
	}
	if s.NodePort != 0 {
		add(netip.Addr{}, s.NodePort)
	}
	return out
}

func claimantOf(s *api.ServicePort, c claim) claimant {
	return claimant{s.Name, slices.Contains(s.ClusterIPs, c.at.Addr())}
}

// Set replaces what service ports claimed by what they claim now: before and after are the same service's, as it wants them. It returns the
// other service ports whose share changed.
func (k *Claims) Set(before, after []api.ServicePort) []api.ServicePortName {
	if k.first == nil {
		k.first, k.rest = map[claim]claimant{}, map[claim][]claimant{}
	}
	if sameClaims(before, after) {
		return nil
	}
	lost := map[claim]claimant{} // winners before the change
	for i := range before {
		for _, c := range claims(&before[i]) {
			if _, seen := lost[c]; !seen {
				lost[c] = k.first[c]
			}
			k.remove(c, claimantOf(&before[i], c))
		}
	}
	for i := range after {
		for _, c := range claims(&after[i]) {
			if _, seen := lost[c]; !seen {
				lost[c] = k.first[c]
			}
			k.add(c, claimantOf(&after[i], c))
		}
	}
	var touched []api.ServicePortName
	for c, was := range lost {
		now := k.first[c]
		if now == was && len(k.rest[c]) == 0 {
			continue
		}
		for _, x := range append([]claimant{was, now}, k.rest[c]...) {
			if x.name.Name != "" && !slices.Contains(touched, x.name) {
				touched = append(touched, x.name)
			}
		}
	}
	return touched
}

// sameClaims reports whether two states of a service want the same: nearly always only endpoints change.
func sameClaims(a, b []api.ServicePort) bool {
	return slices.EqualFunc(a, b, func(a, b api.ServicePort) bool {
		return a.Name == b.Name && a.Protocol == b.Protocol && a.Port == b.Port && a.NodePort == b.NodePort &&
			slices.Equal(a.ClusterIPs, b.ClusterIPs) && slices.Equal(a.External, b.External) && slices.Equal(a.LoadBalancer, b.LoadBalancer)
	})
}

func (k *Claims) remove(c claim, x claimant) {
	switch rest := k.rest[c]; {
	case k.first[c] != x:
		k.rest[c] = slices.DeleteFunc(rest, func(y claimant) bool { return y == x })
	case len(rest) == 0:
		delete(k.first, c)
	default:
		k.first[c], k.rest[c] = rest[0], rest[1:]
	}
	if len(k.rest[c]) == 0 {
		delete(k.rest, c)
	}
}

func (k *Claims) add(c claim, x claimant) {
	was, taken := k.first[c]
	switch {
	case !taken:
		k.first[c] = x
		return
	case was == x || slices.Contains(k.rest[c], x):
		return
	case x.compare(was) < 0:
		k.first[c], x = x, was
	}
	k.rest[c] = append(k.rest[c], x)
	slices.SortFunc(k.rest[c], claimant.compare)
}

// Share returns the service port with only what it gets of what it claims.
func (k *Claims) Share(s api.ServicePort) api.ServicePort {
	if len(k.rest) == 0 {
		return s
	}
	lost := func(a netip.Addr, port uint16) bool {
		x, known := k.first[claim{netip.AddrPortFrom(a, port), s.Protocol}]
		return known && x.name != s.Name
	}
	all := s
	s.ClusterIPs = keep(all.ClusterIPs, func(a netip.Addr) bool { return lost(a, s.Port) })
	s.External = keep(all.External, func(a netip.Addr) bool { return lost(a, s.Port) })
	s.LoadBalancer = keep(all.LoadBalancer, func(p netip.Prefix) bool { return lost(p.Addr(), s.Port) })
	if s.NodePort != 0 && lost(netip.Addr{}, s.NodePort) {
		s.NodePort = 0
	}
	return s
}

// keep returns the list without the lost ones, the list itself where none is.
func keep[T any](list []T, lost func(T) bool) []T {
	if !slices.ContainsFunc(list, lost) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), lost)
}

// Conflicts are what service ports claim and do not get, sorted.
func (k *Claims) Conflicts() []Conflict {
	var out []Conflict
	for c, rest := range k.rest {
		for _, x := range rest {
			out = append(out, Conflict{At: c.at, Protocol: c.proto, Loser: x.name, Winner: k.first[c].name})
		}
	}
	slices.SortFunc(out, func(a, b Conflict) int {
		return cmp.Or(claimant{name: a.Loser}.compare(claimant{name: b.Loser}), a.At.Compare(b.At), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

// Shares gives each service port what it gets, and says who does not get what.
func Shares(services []api.ServicePort) ([]api.ServicePort, []Conflict) {
	var k Claims
	k.Set(nil, services)
	out := slices.Clone(services)
	for i := range out {
		out[i] = k.Share(out[i])
	}
	return out, k.Conflicts()
}
