package rules

import (
	"maps"
	"reflect"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

// XTPlan is what PlanXT planned last, kept so that a change of services which leaves the rules of iptables as they are costs those services:
// in mode userspace most do, as endpoints are the relay's. The zero XTPlan has planned nothing.
type XTPlan struct {
	list  ServiceList
	last  []api.ServicePort // that the rules were planned from, of modes with a relay: a reader's own list is changed in place
	input xtInput
	made  xt.Ruleset
	ok    bool
}

// xtInput is what rules of iptables follow from, besides the services.
type xtInput struct {
	mode     facts.ProxyMode
	services facts.Services
	node     proxy.Node
	masq     masq.Config
	ports    userspace.Ports
}

func (a xtInput) equal(b xtInput) bool {
	return a.mode == b.mode && maps.Equal(a.ports, b.ports) && reflect.DeepEqual(a.services, b.services) &&
		reflect.DeepEqual(a.node, b.node) && reflect.DeepEqual(a.masq, b.masq)
}

// fewFresh is how many services that changed are looked at one by one.
const fewFresh = 64

// Plan is PlanXT. Where the rules are those of the last plan, they share its memory.
func (x *XTPlan) Plan(f facts.Facts, own api.Lease, snap api.Snapshot, ports userspace.Ports) Rules {
	mode := ModeOf(f)
	n := Node(f, snap)
	if mode.Relays() && ports == nil {
		ports = preferredPorts(n, snap.Services, nil)
	}
	now := xtInput{f.ProxyMode, f.Services, n, Masquerade(f, own), ports}
	gone, fresh, known := x.list.Next(snap.Services, snap.Changes)
	same := x.ok && known && len(gone) == 0 && now.equal(x.input)
	now.ports = maps.Clone(ports)
	if same && x.unchanged(mode, f, now, fresh) {
		return Rules{Listeners: listeners(mode, n, snap, ports), XT: x.made}
	}
	r := PlanXT(f, own, snap, ports)
	x.input, x.made, x.ok, x.last = now, r.XT, true, nil
	if mode.Relays() {
		x.last = slices.Clone(snap.Services)
	}
	return r
}

// unchanged reports whether the services that changed have the rules they had before.
func (x *XTPlan) unchanged(mode Mode, f facts.Facts, now xtInput, fresh []api.ServicePort) bool {
	if mode.rules == nil || len(fresh) == 0 {
		return true
	}
	if !mode.Relays() || len(fresh) > fewFresh {
		return false
	}
	for i := range fresh {
		at := slices.IndexFunc(x.last, func(s api.ServicePort) bool { return s.Name == fresh[i].Name && s.Protocol == fresh[i].Protocol })
		if at < 0 {
			return false
		}
		was := mode.rules(f, now.node, now.masq, x.last[at:at+1], now.ports)
		is := mode.rules(f, now.node, now.masq, fresh[i:i+1], now.ports)
		if len(xt.Diff(is, was))+len(xt.Diff(was, is)) > 0 {
			return false
		}
		x.last[at] = fresh[i]
	}
	return true
}

// Listeners are those of a mode that sends connections through the agent, with the ports that are held, or others where none is.
func Listeners(f facts.Facts, snap api.Snapshot, held userspace.Ports) []netstate.Listener {
	n := Node(f, snap)
	return listeners(ModeOf(f), n, snap, preferredPorts(n, snap.Services, held))
}

// listeners are those of the mode on the ports, NodePorts on loopback where its rules do not serve them.
func listeners(mode Mode, n proxy.Node, snap api.Snapshot, ports userspace.Ports) []netstate.Listener {
	switch {
	case mode.Localhost():
		return proxy.AllLocalhost(n, snap.Services)
	case mode.listeners != nil:
		return mode.listeners(n, snap.Services, ports)
	}
	return nil
}
