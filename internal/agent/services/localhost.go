package services

import (
	"slices"
	"strings"

	"weft/internal/agent/facts"
	"weft/internal/agent/rules"
	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
)

// localhost is what the relay listens on for NodePorts on 127.0.0.1 and ::1, in the modes whose rules do not serve them.
type localhost struct {
	made   bool // the listeners are as planned, but for those in failed
	plan   []netstate.Listener
	ports  map[api.ServicePortName]bool // that have a NodePort
	failed []string                     // why some are not open
}

// concerns reports whether changed services may change the listeners.
func (l *localhost) concerns(gone, fresh []api.ServicePort) bool {
	for _, list := range [][]api.ServicePort{gone, fresh} {
		for i := range list {
			if list[i].NodePort != 0 || l.ports[list[i].Name] {
				return true
			}
		}
	}
	return false
}

// set notes what is planned.
func (l *localhost) set(n proxy.Node, services []api.ServicePort) {
	l.plan, l.ports = nil, map[api.ServicePortName]bool{}
	for i := range services {
		if services[i].NodePort != 0 {
			l.ports[services[i].Name] = true
			l.plan = append(l.plan, proxy.Localhost(n, services[i])...)
		}
	}
}

// openLocalhost opens the listeners on loopback before the rules of another mode go that served NodePorts there, and returns how many.
func (p *Loop) openLocalhost(f facts.Facts, snap api.Snapshot) int {
	if p.localhost.made || !rules.ModeOf(f).Localhost() {
		return 0
	}
	n := rules.Node(f, snap)
	p.localhost.set(n, snap.Services)
	var keep []netstate.Listener
	if held := p.heldByRules(); len(held) > 0 {
		keep = userspace.AllListeners(n, snap.Services, held)
	}
	return p.listenLocalhost(keep)
}

// heldByRules are the ports of the relay that rules lead to, or did.
func (p *Loop) heldByRules() userspace.Ports {
	held := userspace.Ports{}
	for key, port := range p.relay.Ports() {
		if !proxy.IsLocalhost(key) {
			held[key] = port
		}
	}
	return held
}

// localhostChanged plans the listeners on loopback anew when services with NodePorts changed, and reports whether it did. In a mode without
// services there are none.
func (p *Loop) localhostChanged(f facts.Facts, snap api.Snapshot) bool {
	services := snap.Services
	switch {
	case !rules.ModeOf(f).Localhost():
		services = nil
		if len(p.localhost.plan) == 0 && p.localhost.made {
			return false
		}
	case rules.ModeOf(f).Table && !p.table.Last.All && !p.localhost.concerns(p.table.Last.Gone, p.table.Last.Fresh):
		return false
	}
	p.localhost.set(rules.Node(f, snap), services)
	p.want.Listeners = p.localhost.plan
	return true
}

// listenLocalhost opens and closes listeners on loopback, beside others, and returns how many. A port that another program has is reported,
// and tried again at the next full check: the service is served everywhere else.
func (p *Loop) listenLocalhost(others []netstate.Listener) int {
	_, n, err := p.listen(slices.Concat(others, p.localhost.plan))
	var failed []string
	if err != nil {
		failed = strings.Split(err.Error(), "\n")
	}
	for _, text := range failed {
		if !slices.Contains(p.localhost.failed, text) {
			p.log.Warn("a NodePort is not served on loopback: free the port there, or give --localhost-nodeports=false", "err", text)
		}
	}
	p.localhost.failed, p.localhost.made = failed, true
	return n
}

// warnings says what is not open.
func (l *localhost) warnings() []string {
	var out []string
	for _, f := range l.failed {
		out = append(out, "NodePort on loopback: "+f)
	}
	return out
}
