package agent

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"weft/internal/agent/guard"
	"weft/internal/kernel/tun/datagram"
	"weft/internal/kernel/tun/wg"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// EdgeStatus is what the edge check refused, whichever part of the node does it: the packet filter for VXLAN, the engines of backends udp
// and wireguard for theirs.
type EdgeStatus struct {
	Check   string          `json:"check"`             // "on", "off", or why there is none
	Sealed  bool            `json:"sealed,omitempty"`  // packets for pods leave by encrypted devices only
	Refused []RefusedCount  `json:"refused,omitempty"` // by backend and reason
	From    []RefusedSender `json:"from,omitempty"`    // who it was, the last hour's; not all when there are many
}

// RefusedCount is how many packets were refused for a reason since the agent's rules were made.
type RefusedCount struct {
	Backend string `json:"backend"`
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

// RefusedSender is a sender of refused packets.
type RefusedSender struct {
	Backend string     `json:"backend"`
	Reason  string     `json:"reason"`
	Outer   string     `json:"outer"`            // underlay address, of WireGuard's strangers with the port; "" when it is not known
	Inner   netip.Addr `json:"inner,omitzero"`   // source of the packet inside, of reasons peer and source
	Packets uint64     `json:"packets,omitzero"` // where it is known for each sender
}

// counters of the kernel as the agent reads them.
type edgeReader interface {
	Counts(family nft.Family, table string) (map[string]uint64, error)
	Members(family nft.Family, table string, set nft.Set) ([]nft.Tuple, error)
}

// edgeCounts are the kernel's counters with what they had counted before they were made anew.
type edgeCounts struct {
	base, last map[edge.Reason]uint64
}

// read brings the counters up to date. A counter that counts backwards was made anew.
func (c *edgeCounts) read(chains map[string]uint64) map[edge.Reason]uint64 {
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

// edgeStatus reads what the packet filter refused.
func (p *proxyLoop) edgeStatus() (EdgeStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.setting()
	out := EdgeStatus{Check: "off", Sealed: len(guard.SealOf(s.Facts).Networks) > 0}
	if s.EdgeCheck {
		out.Check = "on"
	}
	if p.noTables != nil {
		out.Check, out.Sealed = "none: "+p.noTables.Error(), false
		return out, nil
	}
	k, ok := p.nft.(edgeReader)
	if !ok {
		return out, nil
	}
	chains, err := k.Counts(nft.INet, nft.TableName)
	if err != nil {
		return out, err
	}
	counts := p.edge.read(chains)
	for _, r := range append(edge.Reasons(), edge.Cleartext) {
		if n, ok := counts[r]; ok {
			backend := "vxlan"
			if r == edge.Cleartext {
				backend = "wireguard"
			}
			out.Refused = append(out.Refused, RefusedCount{backend, string(r), n})
		}
	}
	for _, w := range edge.Refused(p.table.Guard.Config) {
		keys, err := k.Members(nft.INet, nft.TableName, w.Set)
		if err != nil {
			return out, err
		}
		for _, key := range keys {
			out.From = append(out.From, sender(w, key))
		}
	}
	return out, nil
}

func sender(w edge.Who, key nft.Tuple) RefusedSender {
	from := RefusedSender{Backend: "vxlan", Reason: string(w.Reason)}
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

// add adds what the engines refused.
func (e *EdgeStatus) add(t *tunnelStats) {
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
	slices.SortStableFunc(e.Refused, func(a, b RefusedCount) int { return cmp.Compare(a.Backend, b.Backend) })
}

func (e *EdgeStatus) count(backend, reason, from string, packets uint64) {
	reason = cmp.Or(engineReasons[reason], reason)
	e.From = append(e.From, RefusedSender{Backend: backend, Reason: reason, Outer: from, Packets: packets})
	i := slices.IndexFunc(e.Refused, func(r RefusedCount) bool { return r.Backend == backend && r.Reason == reason })
	if i < 0 {
		i = len(e.Refused)
		e.Refused = append(e.Refused, RefusedCount{Backend: backend, Reason: reason})
	}
	e.Refused[i].Packets += packets
}

// edgeStatus is what all parts of the node refused.
func (a *agent) edgeStatus(t *tunnelStats) EdgeStatus {
	e, err := a.proxy.edgeStatus()
	if err != nil {
		a.log.Debug("what the edge check refused is not known", "err", err) // the loop of the rules reports such trouble
	}
	e.add(t)
	return e
}

// writeEdgeMetrics adds the counters to the metrics.
func writeEdgeMetrics(w io.Writer, e EdgeStatus) {
	const name = "weft_edge_refused_packets_total"
	fmt.Fprintf(w, "# HELP %s packets refused by the edge check or the seal\n# TYPE %s counter\n", name, name)
	for _, r := range e.Refused {
		fmt.Fprintf(w, "%s{backend=%q,reason=%q} %d\n", name, r.Backend, r.Reason, r.Packets)
	}
}

// maxSenders is how many senders "weft status" prints.
const maxSenders = 10

// printEdge prints the status for people.
func printEdge(w io.Writer, e EdgeStatus) {
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
