package agent

import (
	"fmt"
	"io"

	"weft/internal/agent/refused"
	"weft/internal/agent/rules"
	"weft/internal/agent/services"
	"weft/internal/agent/tunnels"
)

// edgeStatus is what all parts of the node refused.
func (a *agent) edgeStatus(t *tunnels.Stats) refused.Status {
	e, err := a.proxy.Refused()
	if err != nil {
		a.log.Debug("what the edge check refused is not known", "err", err) // the loop of the rules reports such trouble
	}
	e.Add(t)
	return e
}

// turnStatus puts the state of the services' mode into the status.
func turnStatus(s *Status, r services.Report) {
	standing := r.Mode
	s.Draining, s.Relayed = r.Draining, r.Relayed
	if want := s.ProxyMode; standing != "" && standing != want {
		s.ProxyMode = standing
		s.Warnings = append(s.Warnings, fmt.Sprintf("services are in mode %s still: they will be in mode %s when its rules are in place", standing, want))
	}
}

// printDraining says what is left of mode userspace.
func printDraining(w io.Writer, s Status) {
	if s.Relayed > 0 && !rules.ModeNamed(s.ProxyMode).Relays() {
		fmt.Fprintf(w, "draining  %d connections through the agent are left of mode userspace, %d of its listeners are open\n", s.Relayed, s.Draining)
	}
}
