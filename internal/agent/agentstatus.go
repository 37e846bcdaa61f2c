package agent

import (
	"fmt"

	"weft/internal/agent/refused"
	"weft/internal/agent/services"
	"weft/internal/agent/status"
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
func turnStatus(s *status.Status, r services.Report) {
	standing := r.Mode
	s.Draining, s.Relayed = r.Draining, r.Relayed
	if want := s.ProxyMode; standing != "" && standing != want {
		s.ProxyMode = standing
		s.Warnings = append(s.Warnings, fmt.Sprintf("services are in mode %s still: they will be in mode %s when its rules are in place", standing, want))
	}
}
