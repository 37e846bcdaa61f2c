package services

import (
	"fmt"
	"io"

	"weft/internal/agent/facts"
	"weft/internal/relay"
)

// relayStatus is what the relay counts, nil in modes without one.
func (p *Loop) relayStatus(mode facts.ProxyMode) *relay.Stats {
	r, ok := p.relay.(interface{ Stats() relay.Stats })
	if !ok || mode != facts.Userspace {
		return nil
	}
	s := r.Stats()
	return &s
}

// FewFiles warns when the relay is about to run out of file descriptors.
func FewFiles(s *relay.Stats) []string {
	if s == nil || s.Files < s.MaxFiles/10*9 {
		return nil
	}
	return []string{fmt.Sprintf("proxy mode userspace uses %d of the %d file descriptors it may use: connections to services have to wait when "+
		"there are no more. Raise the agent's limit (ulimit -n, LimitNOFILE=)", s.Files, s.MaxFiles)}
}

// WriteRelayMetrics prints the relay's counters in the Prometheus text format.
func WriteRelayMetrics(w io.Writer, s *relay.Stats) {
	if s == nil {
		return
	}
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"connections_total", "counter", "TCP connections accepted and UDP sessions begun", s.Accepted},
		{"refused_total", "counter", "TCP connections closed because no endpoint took them", s.Refused},
		{"retries_total", "counter", "endpoints that refused or did not answer, so that another was tried", s.Retries},
		{"limited_total", "counter", "times something had to wait or was dropped for lack of file descriptors", s.Limited},
		{"datagrams_total", "counter", "UDP datagrams passed on, both ways", s.Datagrams},
		{"datagrams_lost_total", "counter", "UDP datagrams that could not be passed on", s.Lost},
		{"active", "gauge", "TCP connections and UDP sessions now", int64(s.Active)},
		{"files", "gauge", "file descriptors used by these", int64(s.Files)},
		{"max_files", "gauge", "file descriptors they may use", int64(s.MaxFiles)},
	} {
		name := "weft_relay_" + m.name
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, m.help, name, m.kind, name, m.value)
	}
}
