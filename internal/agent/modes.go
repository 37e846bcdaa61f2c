package agent

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

// proxyMode is what a mode plans. Each part that a mode leaves out is empty, so what another mode left behind goes.
type proxyMode struct {
	// services: the mode serves them.
	services bool
	// table: services and masquerading are in table inet weft, planned service by service (see fragments). Otherwise they are iptables'.
	table bool
	// rules plans the services in iptables.
	rules func(f facts.Facts, n proxy.Node, m masq.Config, services []api.ServicePort, ports userspace.Ports) xt.Ruleset
	// listeners plans those of the relay: they are opened before the rules lead to the ports they hold.
	listeners func(n proxy.Node, services []api.ServicePort, ports userspace.Ports) []netstate.Listener
}

// modes are all there are: another one is a planner and a line here.
var modes = map[facts.ProxyMode]proxyMode{
	facts.NFTables:  {services: true, table: true},
	facts.IPTables:  {services: true, rules: iptablesRules},
	facts.Userspace: {services: true, rules: userspaceRules, listeners: userspace.AllListeners},
	facts.NoProxy:   {table: true},
}

// relays reports whether the mode sends connections through the agent.
func (m proxyMode) relays() bool { return m.listeners != nil }

// localhost reports whether NodePorts on loopback are the relay's: the mode's rules do not serve them.
func (m proxyMode) localhost() bool { return m.services && m.listeners == nil }

func iptablesRules(f facts.Facts, n proxy.Node, m masq.Config, services []api.ServicePort, _ userspace.Ports) xt.Ruleset {
	return iptablesPlanner(f, m).All(n, services)
}

func userspaceRules(_ facts.Facts, n proxy.Node, _ masq.Config, services []api.ServicePort, ports userspace.Ports) xt.Ruleset {
	return userspace.AllRules(n, services, ports)
}

// modeOf is the node's; one that is not known, of a node with a newer agent, plans nothing.
func modeOf(f facts.Facts) proxyMode { return modes[f.ProxyMode] }

// checkMode refuses modes that there are not.
func checkMode(value string) error {
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
