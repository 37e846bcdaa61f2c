package paths

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Status is what is known of the path to another node.
type Status struct {
	Node    string     `json:"node,omitempty"`
	Address netip.Addr `json:"address"`
	MTU     int        `json:"mtu"`              // bytes, 0: not known
	Narrow  bool       `json:"narrow,omitempty"` // smaller than the interface's: routes to the node's pods have an MTU of their own
	Silent  bool       `json:"silent,omitempty"` // the node answers no echo request
}

// List returns the paths by address.
func (p *Paths) List() []Status {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Status, 0, len(p.known))
	for a, x := range p.known {
		out = append(out, Status{Node: x.node, Address: a, MTU: x.mtu, Narrow: x.mtu > 0 && x.mtu < p.over.mtu, Silent: x.silent > 0})
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Address.Compare(b.Address) })
	return out
}

// shownPaths bounds the line of weft status.
const shownPaths = 5

// Print says which paths are narrow.
func Print(w io.Writer, all []Status) {
	if len(all) == 0 {
		return
	}
	silent, known := 0, 0
	var narrow []string
	for _, p := range all {
		if p.MTU > 0 {
			known++
		}
		if p.Silent {
			silent++
		}
		if p.Narrow {
			narrow = append(narrow, fmt.Sprintf("%s MTU %d", p.Address, p.MTU))
		}
	}
	fmt.Fprintf(w, "paths     %d of %d measured, %d narrow, %d silent", known, len(all), len(narrow), silent)
	if len(narrow) > shownPaths {
		narrow = append(narrow[:shownPaths], "...")
	}
	if len(narrow) > 0 {
		fmt.Fprintf(w, ": %s", strings.Join(narrow, ", "))
	}
	fmt.Fprintln(w)
}

// WriteMetrics prints the MTU of each path in the Prometheus text format.
func WriteMetrics(w io.Writer, all []Status) {
	if len(all) == 0 {
		return
	}
	fmt.Fprint(w, "# HELP weft_path_mtu_bytes MTU of the path to another node, as far as it is known\n# TYPE weft_path_mtu_bytes gauge\n")
	silent := 0
	for _, p := range all {
		if p.MTU > 0 {
			fmt.Fprintf(w, "weft_path_mtu_bytes{address=%q} %d\n", p.Address, p.MTU)
		}
		if p.Silent {
			silent++
		}
	}
	fmt.Fprintf(w, "# HELP weft_paths_silent other nodes that answer no echo request\n# TYPE weft_paths_silent gauge\nweft_paths_silent %d\n", silent)
}
