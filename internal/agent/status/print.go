package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"weft/internal/agent/leases"
	"weft/internal/agent/loop"
	"weft/internal/agent/paths"
	"weft/internal/agent/refused"
	"weft/internal/agent/rules"
)

// limitsShown is how many services that are not served as they want are named, one line each.
const limitsShown = 20

func printStatus(w io.Writer, body []byte) error {
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("read the agent's status: %w", err)
	}
	state := "converged"
	if !s.Converged {
		state = "not converged"
	}
	fmt.Fprintf(w, "node      %s: %s\nsubnet    %s, backend %s, %d peers\npods      %d, attached %s\nservices  %d ports, mode %s\n",
		s.Node, state, cmp.Or(strings.TrimSpace(s.Subnet+" "+s.SubnetV6), "none yet"), s.Backend, s.Peers, s.Pods, s.Attach, s.Services, s.ProxyMode)
	leases.Print(w, s.Lease)
	paths.Print(w, s.Paths)
	for _, l := range []struct {
		name string
		s    loop.Stats
	}{{"network", s.Network.Stats}, {"rules", s.Rules}} {
		fmt.Fprintf(w, "%-9s %d steps, %d ops, %d in the first step", l.name, l.s.Steps, l.s.Ops, l.s.FirstOps)
		if l.s.LastError != "" {
			fmt.Fprintf(w, "\n          %s", l.s.LastError)
		}
		fmt.Fprintln(w)
	}
	printDraining(w, s)
	refused.Print(w, s.Edge)
	printFights(w, s.Fights)
	for _, text := range append(s.Warnings, s.ServiceLimits[:min(len(s.ServiceLimits), limitsShown)]...) {
		fmt.Fprintf(w, "warning   %s\n", text)
	}
	if more := len(s.ServiceLimits) - limitsShown; more > 0 {
		fmt.Fprintf(w, "warning   %d more services are not served as they want: weft status -o json\n", more)
	}
	return nil
}

// printFights is their part of "weft status".
func printFights(w io.Writer, list []loop.Fight) {
	for _, f := range list {
		fmt.Fprintf(w, "fight     %s is changed by %s, repaired %d times since %s, next at %s\n", f.Object, cmp.Or(f.By, "somebody else"), f.Repairs,
			f.Since.Format(time.TimeOnly), f.Next.Format(time.TimeOnly))
	}
}

// printDraining says what is left of mode userspace.
func printDraining(w io.Writer, s Status) {
	if s.Relayed > 0 && !rules.ModeNamed(s.ProxyMode).Relays() {
		fmt.Fprintf(w, "draining  %d connections through the agent are left of mode userspace, %d of its listeners are open\n", s.Relayed, s.Draining)
	}
}
