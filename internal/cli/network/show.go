package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store/etcd"
)

// document is the JSON answer of show.
type document struct {
	Config json.RawMessage `json:"config"`
	Change *changeLine     `json:"change,omitempty"` // of the backend, under way
	Leases []leaseLine     `json:"leases"`
}

type changeLine struct {
	Name  string `json:"name,omitempty"`
	Phase string `json:"phase"` // "preparing" or "leaving"
	From  string `json:"from"`
	To    string `json:"to"`
	Done  int    `json:"done"` // hosts that have done their part of the phase
	Hosts int    `json:"hosts"`
}

type leaseLine struct {
	Subnet   string `json:"subnet,omitempty"`
	SubnetV6 string `json:"subnetV6,omitempty"`
	PublicIP string `json:"publicIP,omitempty"`
	PublicV6 string `json:"publicIPv6,omitempty"`
	Backend  string `json:"backend,omitempty"`
	VTEPMAC  string `json:"vtepMAC,omitempty"`
	Also     string `json:"also,omitempty"`     // further backends by which it receives
	Progress string `json:"progress,omitempty"` // in the change under way
	Reserved bool   `json:"reserved,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

func showCommand(o *options) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "show",
		Short: "show the configuration and who holds which subnet",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: %q is not a format: write table or json", output)
			}
			return o.with(c, func(ctx context.Context, client *etcd.Client) error {
				s, err := client.List(ctx)
				if err != nil {
					return err
				}
				return show(c.OutOrStdout(), s, output == "json")
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

// show prints a snapshot of the store.
func show(w io.Writer, s claim.Snapshot, asJSON bool) error {
	var raw []byte
	for _, e := range s.Entries {
		if e.Key == claim.ConfigKey {
			raw = e.Value
		}
	}
	if raw == nil {
		return etcd.ErrNoConfig
	}
	config, warnings, err := lease.ParseConfig(raw)
	if err != nil {
		return err
	}
	var view claim.View
	view.Reset(s, time.Time{})
	lines := leaseLines(&view, config)
	under := changeOf(config, lines)
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(document{Config: raw, Change: under, Leases: lines})
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "BACKEND\t%s\n", config.Backend.Type)
	for _, v6 := range []bool{false, true} {
		if r := config.Range(v6); r.Network.IsValid() {
			fmt.Fprintf(t, "NETWORK\t%s, /%d for each host from %s to %s\n", r.Network, r.SubnetLen, r.Min, r.Max)
		}
	}
	if under != nil {
		fmt.Fprintf(t, "CHANGE\t%s to %s, %s: %d of %d hosts\n", under.From, under.To, under.Phase, under.Done, under.Hosts)
	}
	for _, warning := range warnings {
		fmt.Fprintf(t, "WARNING\t%s\n", warning)
	}
	fmt.Fprintln(t, "\nSUBNET\tHOST\tBACKEND\tVTEP\tRESERVED\tPROBLEM")
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", join(l.Subnet, l.SubnetV6), join(l.PublicIP, l.PublicV6), dash(l.Backend),
			dash(l.VTEPMAC), strconv.FormatBool(l.Reserved), dash(join(l.Problem, l.Progress)))
	}
	return t.Flush()
}

// changeOf sums up the change of the backend that is under way, nil when there is none.
func changeOf(c lease.Config, lines []leaseLine) *changeLine {
	out := &changeLine{Name: c.Change, Phase: "preparing", From: c.Backend.Type, To: c.Next.Type}
	switch {
	case c.Previous.Type != "":
		out.Phase, out.From, out.To = "leaving", c.Previous.Type, c.Backend.Type
	case c.Next.Type == "":
		return nil
	}
	for _, l := range lines {
		if l.Problem != "" {
			continue
		}
		out.Hosts++
		if strings.HasPrefix(l.Progress, "receives") || strings.HasPrefix(l.Progress, "sends") {
			out.Done++
		}
	}
	return out
}

// leaseLines lists all leases by subnet, those that nobody acts on with the reason.
func leaseLines(view *claim.View, config lease.Config) []leaseLine {
	problems := map[string]string{}
	_, refused := view.Peers(api.Lease{}, nil)
	for _, r := range refused {
		problems[r.Key] = r.Reason
	}
	lines := []leaseLine{}
	for _, r := range view.Records() {
		l := leaseLine{Reserved: r.Reserved(), Problem: problems[r.Key], Backend: r.Lease.BackendType, VTEPMAC: r.Lease.VTEPMAC}
		if l.Problem == "" {
			l.Progress = progress(config, r.Lease)
		}
		for _, k := range lease.Kinds(r.Lease)[1:] {
			l.Also = join(l.Also, k.Type)
		}
		if r.Lease.Subnet.IsValid() {
			l.Subnet = r.Lease.Subnet.String()
		}
		if r.Lease.SubnetV6.IsValid() {
			l.SubnetV6 = r.Lease.SubnetV6.String()
		}
		if l.Subnet+l.SubnetV6 == "" {
			l.Subnet = r.Key // its name is all there is
		}
		if r.Lease.PublicIP.IsValid() {
			l.PublicIP = r.Lease.PublicIP.String()
		}
		if r.Lease.PublicIPv6.IsValid() {
			l.PublicV6 = r.Lease.PublicIPv6.String()
		}
		lines = append(lines, l)
	}
	return lines
}

func join(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return dash(strings.Join(out, ","))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
