package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

// Mode is what a mode plans. Each part that a mode leaves out is empty, so what another mode left behind goes.
type Mode struct {
	// Services: the mode serves them.
	Services bool
	// Table: services and masquerading are in table inet weft, planned service by service (see fragments). Otherwise they are iptables'.
	Table bool
	// rules plans the services in iptables.
	rules func(f facts.Facts, n proxy.Node, m masq.Config, services []api.ServicePort, ports userspace.Ports) xt.Ruleset
	// listeners plans those of the relay: they are opened before the rules lead to the ports they hold.
	listeners func(n proxy.Node, services []api.ServicePort, ports userspace.Ports) []netstate.Listener
}

// modes are all there are: another one is a planner and a line here.
var modes = map[facts.ProxyMode]Mode{
	facts.NFTables:  {Services: true, Table: true},
	facts.IPTables:  {Services: true, rules: iptablesRules},
	facts.Userspace: {Services: true, rules: userspaceRules, listeners: userspace.AllListeners},
	facts.NoProxy:   {Table: true},
}

// Relays reports whether the mode sends connections through the agent.
func (m Mode) Relays() bool { return m.listeners != nil }

// Localhost reports whether NodePorts on loopback are the relay's: the mode's rules do not serve them.
func (m Mode) Localhost() bool { return m.Services && m.listeners == nil }

func iptablesRules(f facts.Facts, n proxy.Node, m masq.Config, services []api.ServicePort, _ userspace.Ports) xt.Ruleset {
	return iptablesPlanner(f, m).All(n, services)
}

// userspaceRules mark no packet. But one that the rules of the mode before marked on its way in may be under way when those go, and would leave
// with an address that answers do not find back from.
func userspaceRules(f facts.Facts, n proxy.Node, m masq.Config, services []api.ServicePort, ports userspace.Ports) xt.Ruleset {
	return xt.Union(userspace.AllRules(n, services, ports), iptablesPlanner(f, m).Masquerading(n))
}

// ModeOf is the node's; one that is not known, of a node with a newer agent, plans nothing.
func ModeOf(f facts.Facts) Mode { return modes[f.ProxyMode] }

// CheckMode refuses modes that there are not.
func CheckMode(value string) error {
	if _, ok := modes[facts.ProxyMode(value)]; ok {
		return nil
	}
	if value == "ebpf" {
		return fmt.Errorf("--proxy-mode=ebpf: this version has no such mode: nftables is the fastest it has")
	}
	if value == "ipvs" {
		return fmt.Errorf("--proxy-mode=ipvs: weft has no such mode: nftables does the same without it")
	}
	names := slices.Sorted(maps.Keys(modes))
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = string(n)
	}
	return fmt.Errorf("--proxy-mode=%s: want %s", value, strings.Join(list, " or "))
}

// ModeNamed is the mode with the name; one that is not known plans nothing.
func ModeNamed(p facts.ProxyMode) Mode { return modes[p] }
