package probe

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"weft/internal/netstate"
)

// Choice says which interface is the underlay. The ways are tried in the order of the fields, and of each field's values; the first
// interface that fits is taken. The default route counts only when nothing is asked for.
type Choice struct {
	Names    []string         // --iface: an interface's name or one of its addresses
	Patterns []*regexp.Regexp // --iface-regex: each matches a name or an address, anywhere in it
	CanReach netip.Addr       // --iface-can-reach: the interface by which the kernel sends to this address
	Prefer   []netip.Addr     // put before the interface's other addresses of their family, where it has them
}

// explicit reports whether anything is asked for.
func (c Choice) explicit() bool {
	return len(c.Names) > 0 || len(c.Patterns) > 0 || c.CanReach.IsValid()
}

// device is a network interface as far as the choice goes.
type device struct {
	name, alias, mac string
	index, mtu       int
	up, loopback     bool
	master           string // the bond, bridge or VRF that it is a port of
	addrs            []address
}

// address is one of a device's.
type address struct {
	netip.Prefix
	state rank
}

// rank orders addresses: the lower the better as the node's own.
type rank int

const (
	preferred  rank = iota
	temporary       // RFC 8981: another one tomorrow
	deprecated      // its preferred lifetime is over, for new connections another is better
	tentative       // duplicate address detection runs, in a second it is preferred
	linkLocal       // only good where nothing is routed
	unusable        // loopback, or somebody else has it
)

// refuse says why the device can't be the underlay, "" when it can.
func (d device) refuse() string {
	switch {
	case d.loopback:
		return "is the loopback interface"
	case strings.HasPrefix(d.alias, netstate.AliasPrefix), strings.HasPrefix(d.name, "flannel"):
		return "is part of the overlay itself"
	case !d.up:
		return "is down"
	case len(d.usable()) == 0 && d.master != "":
		return "has no address and is a port of " + d.master
	case len(d.usable()) == 0:
		return "has no address"
	}
	return ""
}

// usable are the device's addresses, the best first. Among equals the kernel's order stays: a primary address before its secondaries.
func (d device) usable() []address {
	out := slices.DeleteFunc(slices.Clone(d.addrs), func(a address) bool { return a.state == unusable })
	slices.SortStableFunc(out, func(a, b address) int { return int(a.state - b.state) })
	return out
}

func (d device) has(ip netip.Addr) bool {
	return slices.ContainsFunc(d.addrs, func(a address) bool { return a.Addr() == ip })
}

// routing is what the choice asks of the routing table.
type routing interface {
	// To returns the device and the source address of what is sent to ip.
	To(ip netip.Addr) (dev string, src netip.Addr, err error)
	// Defaults are the devices of the default routes, IPv4's first, those of lower metric first.
	Defaults() ([]string, error)
}

// search is one run of a choice: what was looked at, and why it was not taken.
type search struct {
	devices []device
	tried   []string
}

// choose returns the device and, where the way to it named one, the address. The error wraps ErrNoUnderlay and lists each candidate.
func (c Choice) choose(devices []device, r routing) (device, netip.Addr, error) {
	s := &search{devices: devices}
	for _, want := range c.Names {
		if d, a, ok := s.byName(want); ok {
			return d, a, nil
		}
	}
	for _, p := range c.Patterns {
		if d, a, ok := s.byPattern(p); ok {
			return d, a, nil
		}
	}
	if c.CanReach.IsValid() {
		if d, a, ok := s.byRoute(c.CanReach, r); ok {
			return d, a, nil
		}
	}
	if !c.explicit() {
		d, ok, err := s.byDefault(r)
		if err != nil || ok {
			return d, netip.Addr{}, err
		}
	}
	return device{}, netip.Addr{}, fmt.Errorf("%w: %s (interfaces here: %s)", ErrNoUnderlay, strings.Join(s.tried, "; "), s.names())
}

func (s *search) names() string {
	out := make([]string, len(s.devices))
	for i, d := range s.devices {
		out[i] = d.name
	}
	return strings.Join(out, ", ")
}

// take notes why the device is refused, or takes it.
func (s *search) take(way string, d device) bool {
	reason := d.refuse()
	if reason == "" {
		return true
	}
	s.note(way, d.name+" "+reason)
	return false
}

func (s *search) note(way, text string) { s.tried = append(s.tried, way+": "+text) }

func (s *search) find(name string) (device, bool) {
	i := slices.IndexFunc(s.devices, func(d device) bool { return d.name == name })
	if i < 0 {
		return device{}, false
	}
	return s.devices[i], true
}

func (s *search) byName(want string) (device, netip.Addr, bool) {
	way := "--iface=" + want
	ip, err := netip.ParseAddr(want)
	if err != nil {
		d, ok := s.find(want)
		if !ok {
			s.note(way, "there is no such interface")
			return d, netip.Addr{}, false
		}
		return d, netip.Addr{}, s.take(way, d)
	}
	ip = ip.Unmap()
	found := false
	for _, d := range s.devices {
		if !d.has(ip) {
			continue
		}
		found = true
		if s.take(way, d) {
			return d, ip, true
		}
	}
	if !found {
		s.note(way, "no interface has this address")
	}
	return device{}, netip.Addr{}, false
}

func (s *search) byPattern(p *regexp.Regexp) (device, netip.Addr, bool) {
	way, matched := "--iface-regex="+p.String(), false
	for _, d := range s.devices {
		var at netip.Addr
		hit := p.MatchString(d.name)
		for _, a := range d.usable() {
			if !hit && p.MatchString(a.Addr().String()) {
				hit, at = true, a.Addr()
			}
		}
		if !hit {
			continue
		}
		matched = true
		if s.take(way, d) {
			return d, at, true
		}
	}
	if !matched {
		s.note(way, "no interface's name or address matches")
	}
	return device{}, netip.Addr{}, false
}

func (s *search) byRoute(to netip.Addr, r routing) (device, netip.Addr, bool) {
	way := "--iface-can-reach=" + to.String()
	dev, src, err := r.To(to)
	if err != nil {
		s.note(way, err.Error())
		return device{}, netip.Addr{}, false
	}
	d, ok := s.find(dev)
	if !ok {
		s.note(way, "the route leads to "+dev+", which is gone")
		return d, netip.Addr{}, false
	}
	return d, src, s.take(way, d)
}

func (s *search) byDefault(r routing) (device, bool, error) {
	const way = "default route"
	names, err := r.Defaults()
	if err != nil {
		return device{}, false, err
	}
	for _, name := range names {
		if d, ok := s.find(name); ok && s.take(way, d) {
			return d, true, nil
		}
	}
	if len(names) == 0 {
		s.note(way, "there is none: name the interface with --iface")
	}
	return device{}, false, nil
}
