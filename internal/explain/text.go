package explain

import (
	"fmt"
	"strings"

	"weft/internal/netstate"
)

// Text prints the trace for a person: a numbered line for each step with the object that decided, then the flow's
// changes in braces as the walkthrough writes them.
func (t Trace) Text() string {
	var b strings.Builder
	hostWidth, pointWidth := 0, 0
	for _, s := range t.Steps {
		hostWidth, pointWidth = max(hostWidth, len(s.Host)), max(pointWidth, len(s.Point))
	}
	for i, s := range t.Steps {
		fmt.Fprintf(&b, "%2d  %-*s  %-*s  %s\n", i+1, hostWidth, s.Host, pointWidth, s.Point, s.Effect)
		if s.Object != "" {
			fmt.Fprintf(&b, "    %-*s  %-*s    %s\n", hostWidth, "", pointWidth, "", s.Object)
		}
	}
	fmt.Fprintf(&b, "%s: %s\n", t.Verdict, t.End)
	b.WriteString(t.Legs())
	b.WriteByte('\n')
	return b.String()
}

// Legs prints the flows the packet had, in order: "{a -> b} => {c -> d}".
func (t Trace) Legs() string {
	var legs []string
	for _, f := range t.Flows {
		if !f.Src.Addr().IsValid() { // before the route chose the source
			continue
		}
		legs = append(legs, "{"+strings.TrimPrefix(f.String(), f.Proto+" ")+"}")
	}
	return strings.Join(legs, " => ")
}

// Text prints the topology: nodes, their devices, and the pods behind them.
func (w World) Text() string {
	var b strings.Builder
	nodes := w.nodes()
	for i, n := range nodes {
		branch, rest := "├─ ", "│  "
		if i == len(nodes)-1 {
			branch, rest = "└─ ", "   "
		}
		b.WriteString(branch + n.Name + "\n")
		lines := n.deviceLines(w)
		for j, l := range lines {
			mark := "├─ "
			if j == len(lines)-1 {
				mark = "└─ "
			}
			b.WriteString(rest + mark + l + "\n")
		}
	}
	return b.String()
}

func (w World) nodes() []*Host {
	var out []*Host
	for _, h := range w.Hosts {
		if !h.Pod {
			out = append(out, h)
		}
	}
	return out
}

// podsOn returns the pods whose veth ends on the node, with the port.
func (w World) podsOn(node *Host) map[string]*Host {
	out := map[string]*Host{}
	for _, l := range netstate.Of[netstate.Link](node.State) {
		if l.Type == netstate.TypeVeth && l.Peer.Netns != "" {
			if pod := w.podOf(l.Peer.Netns); pod != nil {
				out[l.Name] = pod
			}
		}
	}
	return out
}

// device is one line of a node's picture.
type device struct {
	name, detail string
	pod          bool
}

func (h *Host) devices(w World) []device {
	var out []device
	seen := map[string]bool{}
	for _, a := range h.addrs() {
		if _, own := h.link(a.Dev); !own && !seen[a.Dev] && a.Dev != "lo" {
			seen[a.Dev] = true
			out = append(out, device{name: a.Dev, detail: a.Prefix.String()})
		}
	}
	pods := w.podsOn(h)
	for _, l := range netstate.Of[netstate.Link](h.State) {
		if l.Type == netstate.TypeVeth {
			continue
		}
		d := device{name: l.Name}
		if ip := h.addrOf(l.Name, false); ip.IsValid() {
			d.detail = ip.String()
		}
		if l.Type == netstate.TypeVXLAN {
			d.detail += fmt.Sprintf("  vxlan id %d port %d", l.VXLAN.VNI, l.VXLAN.Port)
		} else {
			d.detail += "  " + string(l.Type)
		}
		out = append(out, d)
	}
	for _, l := range netstate.Of[netstate.Link](h.State) {
		if pod := pods[l.Name]; pod != nil {
			out = append(out, device{name: pod.Name, detail: pod.addrOf("eth0", false).String() + "  " + l.Name, pod: true})
		}
	}
	for _, l := range netstate.Of[netstate.Listener](h.State) {
		out = append(out, device{name: l.Service, detail: fmt.Sprintf("%s port %d", strings.ToLower(l.Protocol), l.Addr.Port())})
	}
	return out
}

func (h *Host) deviceLines(w World) []string {
	var lines []string
	for _, d := range h.devices(w) {
		lines = append(lines, fmt.Sprintf("%-28s %s", d.name, d.detail))
	}
	return lines
}
