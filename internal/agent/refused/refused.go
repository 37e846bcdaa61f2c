// Package refused tells what the edge check refused, whichever part of the node did it.
//
// Floor 4, programs.
package refused

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"weft/internal/agent/tunnels"
	"weft/internal/kernel/tun/datagram"
	"weft/internal/kernel/tun/wg"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// Status is what the edge check refused, whichever part of the node does it: the packet filter for VXLAN, the engines of backends udp
// and wireguard for theirs.
type Status struct {
	Check   string   `json:"check"`             // "on", "off", or why there is none
	Sealed  bool     `json:"sealed,omitempty"`  // packets for pods leave by encrypted devices only
	Refused []Count  `json:"refused,omitempty"` // by backend and reason
	From    []Sender `json:"from,omitempty"`    // who it was, the last hour's; not all when there are many
}

// Count is how many packets were refused for a reason since the agent's rules were made.
type Count struct {
	Backend string `json:"backend"`
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

// Sender is a sender of refused packets.
type Sender struct {
	Backend string     `json:"backend"`
	Reason  string     `json:"reason"`
	Outer   string     `json:"outer"`            // underlay address, of WireGuard's strangers with the port; "" when it is not known
	Inner   netip.Addr `json:"inner,omitzero"`   // source of the packet inside, of reasons peer and source
	Packets uint64     `json:"packets,omitzero"` // where it is known for each sender
}

// Reader reads the counters of the kernel and who was refused.
type Reader interface {
	Counts(family nft.Family, table string) (map[string]uint64, error)
	Members(family nft.Family, table string, set nft.Set) ([]nft.Tuple, error)
}

// Counts are the kernel's counters with what they had counted before they were made anew.
type Counts struct {
	base, last map[edge.Reason]uint64
}

// Read brings the counters up to date. A counter that counts backwards was made anew.
func (c *Counts) Read(chains map[string]uint64) map[edge.Reason]uint64 {
	if c.base == nil {
		c.base, c.last = map[edge.Reason]uint64{}, map[edge.Reason]uint64{}
	}
	out := map[edge.Reason]uint64{}
	for _, r := range append(edge.Reasons(), edge.Cleartext) {
		n, ok := chains[r.Chain()]
		if n < c.last[r] {
			c.base[r] += c.last[r]
		}
		c.last[r] = n
		if total := c.base[r] + n; ok || total > 0 {
			out[r] = total
		}
	}
	return out
}

// SenderOf is the sender that an element of one of the sets of the edge check names.
func SenderOf(w edge.Who, key nft.Tuple) Sender {
	from := Sender{Backend: "vxlan", Reason: string(w.Reason)}
	v := key.Values(w.Set.Key)
	if len(v) > 0 {
		from.Outer = v[0].Addr.String()
	}
	if len(v) > 1 {
		from.Inner = v[1].Addr
	}
	return from
}

// engineReasons are the engines' reasons in the words of the others.
var engineReasons = map[string]string{
	datagram.ReasonNoPeer: string(edge.Peer), datagram.ReasonSource: string(edge.Source),
	wg.ReasonHandshake: string(edge.Peer), wg.ReasonRepeated: "handshake", wg.ReasonForeign: "foreign",
}

// Add adds what the engines refused.
func (e *Status) Add(t *tunnels.Stats) {
	if t == nil {
		return
	}
	if t.UDP != nil {
		for _, r := range t.UDP.Refused {
			from := ""
			if r.From.IsValid() {
				from = r.From.String()
			}
			e.count("udp", r.Reason, from, r.Packets)
		}
	}
	if t.WireGuard != nil {
		for _, r := range t.WireGuard.Refused {
			e.count("wireguard", r.Reason, r.From, r.Packets)
		}
	}
	slices.SortStableFunc(e.Refused, func(a, b Count) int { return cmp.Compare(a.Backend, b.Backend) })
}

func (e *Status) count(backend, reason, from string, packets uint64) {
	reason = cmp.Or(engineReasons[reason], reason)
	e.From = append(e.From, Sender{Backend: backend, Reason: reason, Outer: from, Packets: packets})
	i := slices.IndexFunc(e.Refused, func(r Count) bool { return r.Backend == backend && r.Reason == reason })
	if i < 0 {
		i = len(e.Refused)
		e.Refused = append(e.Refused, Count{Backend: backend, Reason: reason})
	}
	e.Refused[i].Packets += packets
}

// WriteMetrics adds the counters to the metrics.
func WriteMetrics(w io.Writer, e Status) {
	const name = "weft_edge_refused_packets_total"
	fmt.Fprintf(w, "# HELP %s packets refused by the edge check or the seal\n# TYPE %s counter\n", name, name)
	for _, r := range e.Refused {
		fmt.Fprintf(w, "%s{backend=%q,reason=%q} %d\n", name, r.Backend, r.Reason, r.Packets)
	}
}

// maxSenders is how many senders "weft status" prints.
const maxSenders = 10

// Print prints the status for people.
func Print(w io.Writer, e Status) {
	var total uint64
	for _, r := range e.Refused {
		total += r.Packets
	}
	seal := ""
	if e.Sealed {
		seal = ", sealed"
	}
	fmt.Fprintf(w, "edge      check %s%s, %d packets refused\n", e.Check, seal, total)
	for _, r := range e.Refused {
		if r.Packets > 0 {
			fmt.Fprintf(w, "          %s %s: %d\n", r.Backend, r.Reason, r.Packets)
		}
	}
	for i, f := range e.From {
		if i == maxSenders {
			fmt.Fprintf(w, "          and %d more: weft status -o json\n", len(e.From)-i)
			break
		}
		inside := ""
		if f.Inner.IsValid() {
			inside = ", inside " + f.Inner.String()
		}
		fmt.Fprintf(w, "          from %s%s: %s\n", cmp.Or(f.Outer, "others"), inside, f.Reason)
	}
}
