package leases

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"weft/internal/lease/claim"
)

// Status is what the agent says of the node's own lease and of those of others it does not act on.
type Status struct {
	Phase     string    `json:"phase"`               // held, seeking or lost
	Permanent bool      `json:"permanent,omitempty"` // a reservation or a podCIDR: it does not run out
	Expires   time.Time `json:"expires,omitzero"`
	Problem   string    `json:"problem,omitempty"` // what is wrong with the lease or its store; traffic goes on meanwhile
	Since     time.Time `json:"since,omitzero"`    // of the problem
	Stranded  []string  `json:"stranded,omitempty"`
	Refused   []Refused `json:"refused,omitempty"`
}

// Refused is a lease of the store, or of a node, that gets no path from here.
type Refused struct {
	Lease  string `json:"lease"` // its key, or "node NAME"
	Kind   string `json:"kind"`  // one word, the label of the metric
	Reason string `json:"reason"`
	Value  string `json:"value,omitempty"`
}

func refusedOf(all []claim.Refusal) []Refused {
	out := make([]Refused, len(all))
	for i, r := range all {
		out[i] = Refused{Lease: r.Key, Kind: r.Kind, Reason: r.Reason, Value: r.Value}
	}
	return out
}

// Degraded lists what is wrong though traffic works, one line each.
func (s *Status) Degraded() []string {
	if s == nil {
		return nil
	}
	var out []string
	if s.Problem != "" {
		out = append(out, fmt.Sprintf("since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Problem))
	}
	if n := len(s.Stranded); n > 0 {
		out = append(out, fmt.Sprintf("%d pods have addresses that are not of the node's subnet any more, other nodes cannot reach them: "+
			"delete %s", n, strings.Join(s.Stranded[:min(n, 3)], ", ")))
	}
	if n := len(s.Refused); n > 0 {
		out = append(out, fmt.Sprintf("%d leases of others are refused, the first: %s", n, s.Refused[0].Reason))
	}
	return out
}

// WriteMetrics adds the lease's state to the metrics.
func WriteMetrics(w io.Writer, s *Status) {
	if s == nil {
		return
	}
	held, expires := 0, 0.0
	if s.Phase == claim.Held.String() {
		held = 1
	}
	if !s.Expires.IsZero() {
		expires = float64(s.Expires.Unix())
	}
	problem := 0
	if s.Problem != "" {
		problem = 1
	}
	for _, m := range []struct {
		name, help string
		v          float64
	}{
		{"weft_lease_held", "1 when the node holds the lease of its subnet", float64(held)},
		{"weft_lease_problem", "1 while something stands between the node and its lease, see weft status", float64(problem)},
		{"weft_lease_expiry_timestamp_seconds", "when the node's lease runs out unless it is renewed, 0: never", expires},
		{"weft_pods_stranded", "pods with addresses outside the node's subnet", float64(len(s.Stranded))},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %g\n", m.name, m.help, m.name, m.name, m.v)
	}
	count := map[string]int{claim.Malformed: 0, claim.Outside: 0, claim.Overlapping: 0, claim.OwnSubnet: 0, claim.InTheWay: 0}
	for _, r := range s.Refused {
		count[r.Kind]++
	}
	const name = "weft_leases_refused"
	fmt.Fprintf(w, "# HELP %s leases of others that are not acted on\n# TYPE %s gauge\n", name, name)
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "%s{reason=%q} %d\n", name, kind, count[kind])
	}
}

// Print is the lease's part of "weft status".
func Print(w io.Writer, s *Status) {
	if s == nil {
		return
	}
	word := s.Phase
	switch {
	case s.Permanent && s.Phase == claim.Held.String():
		word += ", permanent"
	case !s.Expires.IsZero():
		word += ", renewed until " + s.Expires.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "lease     %s\n", word)
	if s.Problem != "" {
		fmt.Fprintf(w, "          since %s: %s\n", s.Since.UTC().Format(time.RFC3339), s.Problem)
	}
	if len(s.Stranded) > 0 {
		fmt.Fprintf(w, "          pods with addresses of another subnet: %s\n", strings.Join(s.Stranded, ", "))
	}
	for _, r := range s.Refused {
		fmt.Fprintf(w, "refused   %s (%s): %s\n", r.Lease, r.Kind, r.Reason)
	}
}
