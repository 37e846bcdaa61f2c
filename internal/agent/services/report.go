package services

import (
	"io"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/relay"
)

// Report is what the loop says of itself, for status.
type Report struct {
	Stats     loop.Stats
	Ports     int             // of services
	Mode      facts.ProxyMode // the one in force, "" before the first
	Draining  int             // listeners of mode userspace that are open for what they have
	Relayed   int             // connections and sessions of the relay that rules sent there
	Warnings  []string        // what stands in the way and is not ours to change
	Limits    []string        // what of services is not done as they want it, and why
	Relay     *relay.Stats    // nil in modes without one
	Forgotten int             // flows of UDP services that led elsewhere
}

// Report is what the loop says of itself while the mode is asked for.
func (p *Loop) Report(mode facts.ProxyMode) Report {
	p.mu.Lock()
	r := Report{Stats: p.steps, Ports: p.ports, Limits: p.limits.Texts()}
	p.mu.Unlock()
	r.Mode, r.Draining, r.Relayed = p.turned()
	r.Warnings, r.Relay, r.Forgotten = p.warnings(), p.relayStatus(mode), p.flows.Count()
	return r
}

// Ready is closed after the first step that worked.
func (p *Loop) Ready() <-chan struct{} { return p.ready }

// WriteMetrics prints what kube-proxy's metrics of the same names say, in the Prometheus text format.
func (p *Loop) WriteMetrics(w io.Writer) {
	if p == nil {
		return
	}
	p.syncs.WriteMetrics(w, p.flows.Count(), p.local(), p.ruleCounts())
}
