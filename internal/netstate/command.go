package netstate

import (
	"net/netip"
	"strconv"
	"strings"
)

// String is the op as one line: its commands joined with "; ", or verb, kind and object for what no command makes.
func (op Op) String() string {
	if c := op.Commands(); len(c) > 0 {
		return strings.Join(c, "; ")
	}
	return op.Verb.String() + " " + op.Object.Kind().String() + " " + op.Object.String()
}

// Commands returns the command lines that do what the op does: ip(8), bridge(8) or sysctl(8). It is empty for objects that a
// user-space engine applies, and for the deletion of a sysctl, which leaves the value as it is.
func (op Op) Commands() []string {
	if steps := op.Steps(); len(steps) > 1 {
		var out []string
		for _, s := range steps {
			out = append(out, s.Commands()...)
		}
		return out
	}
	switch o := op.Object.(type) {
	case Link:
		return op.linkCommands(o)
	case Addr:
		return op.addrCommands(o)
	case Neigh:
		if op.Verb == Del {
			return []string{"ip neigh del " + o.IP.String() + " dev " + o.Dev}
		}
		return []string{"ip neigh replace " + o.String()}
	case FDB:
		return op.fdbCommands(o)
	case Route:
		if op.Verb == Del && o.Onlink && o.Dst.Addr().Is4() {
			// A route by a next hop object is not found by its gateway.
			o.Via, o.Dev, o.Onlink = netip.Addr{}, "", false
			return []string{"ip route del " + o.String()}
		}
		return []string{"ip route " + op.Verb.routeWord() + " " + o.String()}
	case Sysctl:
		if op.Verb == Del {
			return nil
		}
		return []string{"sysctl -w " + o.String()}
	}
	return nil
}

// Steps returns the op as the kernel takes it: the op itself, or a deletion and an addition. The length of an IPv6 address can't be
// changed. An IPv6 route with a gateway that is on the
// link only by being said so ("onlink") can't replace one of another device: the kernel looks the gateway up, finds it behind the old route
// and refuses the new one.
func (op Op) Steps() []Op {
	if op.Verb == Set && op.Object.Kind() == KindAddr {
		return []Op{{Verb: Del, Object: op.Old}, {Verb: Add, Object: op.Object}}
	}
	r, ok := op.Object.(Route)
	old, was := op.Old.(Route)
	if ok && was && op.Verb == Set && r.Onlink && r.Dst.Addr().Is6() && r.Dev != old.Dev {
		return []Op{{Verb: Del, Object: old}, {Verb: Add, Object: r}}
	}
	return []Op{op}
}

func (v Verb) routeWord() string { return [...]string{"add", "replace", "del"}[v] }

func (op Op) addrCommands(a Addr) []string {
	if op.Verb == Del {
		return []string{"ip addr del " + a.Prefix.String() + " dev " + a.Dev}
	}
	return []string{"ip addr add " + a.String()}
}

func (op Op) fdbCommands(f FDB) []string {
	switch {
	case op.Verb == Del:
		return []string{"bridge fdb del " + f.MAC + " dev " + f.Dev + " dst " + f.Dst.String() + " self"}
	case f.Group():
		return []string{"bridge fdb append " + f.String()}
	}
	return []string{"bridge fdb replace " + f.String()}
}

func (op Op) linkCommands(l Link) []string {
	if op.Verb == Del {
		return []string{"ip link del dev " + l.Name}
	}
	old, set := op.Old.(Link)
	if op.Verb == Set && set {
		return l.setCommands(old)
	}
	if l.Type == TypeTUN {
		return append([]string{"ip tuntap add dev " + l.Name + " mode tun"}, l.setCommands(Link{Name: l.Name})...)
	}
	add := "ip link add dev " + l.Name
	if l.MTU != 0 {
		add += " mtu " + strconv.Itoa(l.MTU)
	}
	if l.MAC != "" {
		add += " address " + l.MAC
	}
	made := Link{Name: l.Name, MTU: l.MTU, MAC: l.MAC}
	return append([]string{add + " type " + l.typeText()}, l.setCommands(made)...)
}

// setCommands returns the commands that change old to l, apart from what is fixed at creation.
func (l Link) setCommands(old Link) []string {
	set := func(words string) string { return "ip link set dev " + l.Name + words }
	words := ""
	if l.MTU != old.MTU && l.MTU != 0 {
		words += " mtu " + strconv.Itoa(l.MTU)
	}
	if l.MAC != old.MAC && l.MAC != "" {
		words += " address " + l.MAC
	}
	if l.Alias != old.Alias {
		words += " alias " + quote(l.Alias)
	}
	if l.Master != old.Master {
		if l.Master == "" {
			words += " nomaster"
		} else {
			words += " master " + l.Master
		}
	}
	var out []string
	if words != "" {
		out = append(out, set(words))
	}
	if words := l.vxlanChange(old); words != "" {
		out = append(out, set(words))
	}
	oldPort := old.Port
	if l.Master != old.Master {
		oldPort = Port{} // the flags belong to the port, not to the link
	}
	if p := l.Port.change(oldPort); p != "" && l.Master != "" {
		out = append(out, set(" type bridge_slave"+p))
	}
	if l.Up != old.Up {
		out = append(out, set(map[bool]string{true: " up", false: " down"}[l.Up]))
	}
	return out
}

// change is the words that change old to p.
func (p Port) change(old Port) string {
	flag := func(word string, want, have bool, on, off string) string {
		switch {
		case want == have:
			return ""
		case want:
			return " " + word + " " + on
		}
		return " " + word + " " + off
	}
	return flag("hairpin", p.Hairpin, old.Hairpin, "on", "off") +
		flag("neigh_suppress", p.NeighSuppress, old.NeighSuppress, "on", "off") +
		flag("learning", p.NoLearning, old.NoLearning, "off", "on") +
		flag("isolated", p.Isolated, old.Isolated, "on", "off")
}

// quote puts a word that ip(8) or Parse would split into double quotes.
func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\r\n\"'\\#") && strconv.Quote(s) == `"`+s+`"` {
		return s
	}
	return strconv.Quote(s)
}
