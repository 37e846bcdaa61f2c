package agent

import (
	"fmt"
	"io"

	"weft/internal/agent/refused"
	"weft/internal/agent/rules"
	"weft/internal/agent/tunnels"
	"weft/internal/proxy"
	"weft/internal/relay"
)

// edgeStatus is what all parts of the node refused.
func (a *agent) edgeStatus(t *tunnels.Stats) refused.Status {
	e, err := a.proxy.edgeStatus()
	if err != nil {
		a.log.Debug("what the edge check refused is not known", "err", err) // the loop of the rules reports such trouble
	}
	e.Add(t)
	return e
}

// turnStatus puts the state of the services' mode into the status.
func (a *agent) turnStatus(s *Status) {
	standing, draining, relayed := a.proxy.turned()
	s.Draining, s.Relayed = draining, relayed
	if want := s.ProxyMode; standing != "" && standing != want {
		s.ProxyMode = standing
		s.Warnings = append(s.Warnings, fmt.Sprintf("services are in mode %s still: they will be in mode %s when its rules are in place", standing, want))
	}
}

// throughRules counts the relay's connections that rules sent there: those to NodePorts on loopback came by themselves, in any mode.
func throughRules(all []relay.Connection) int {
	n := 0
	for _, c := range all {
		if !proxy.IsLocalhost(c.Service) {
			n++
		}
	}
	return n
}

// printDraining says what is left of mode userspace.
func printDraining(w io.Writer, s Status) {
	if s.Relayed > 0 && !rules.ModeNamed(s.ProxyMode).Relays() {
		fmt.Fprintf(w, "draining  %d connections through the agent are left of mode userspace, %d of its listeners are open\n", s.Relayed, s.Draining)
	}
}
