package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/lab/control"
	"weft/internal/lab/topology"
)

// Status is what a lab does now.
type Status struct {
	Name     string       `json:"name"`
	Created  time.Time    `json:"created"`
	Rootless bool         `json:"rootless"`
	Dir      string       `json:"dir"` // logs are in its directory logs
	Hosts    []HostStatus `json:"hosts"`
}

// HostStatus is what a host does now.
type HostStatus struct {
	Name     string           `json:"name"`
	Address  netip.Addr       `json:"address"`
	Role     topology.Role    `json:"role"`
	PID      int              `json:"pid,omitempty"`   // of its first process, outside; 0: the host is gone
	Subnet   netip.Prefix     `json:"subnet,omitzero"` // pod subnet it holds
	Programs []control.Status `json:"programs"`        // in the order of their first start
	Error    string           `json:"error,omitempty"` // why the host does not answer
}

// Status asks all hosts.
func (l *Lab) Status(ctx context.Context) Status {
	s := Status{Name: l.info.Name, Created: l.info.Created, Rootless: l.info.Rootless, Dir: l.dir}
	for _, h := range l.info.Topology.Hosts {
		hs := HostStatus{Name: h.Name, Address: h.Address, Role: h.Role, Programs: []control.Status{}}
		pid, err := l.PID(ctx, h.Name)
		if err == nil {
			hs.PID = pid
			hs.Programs, err = l.Programs(ctx, h.Name)
		}
		if err != nil {
			hs.Error = err.Error()
		} else if subnet, err := l.Subnet(ctx, h.Name); err == nil { // a host without one has no file
			hs.Subnet = subnet
		}
		s.Hosts = append(s.Hosts, hs)
	}
	return s
}

// Print writes the status as a table.
func (s Status) Print(out io.Writer, now time.Time) error {
	kind := "root"
	if s.Rootless {
		kind = "rootless"
	}
	fmt.Fprintf(out, "lab %s, %s, up %s, logs in %s/logs\n\n", s.Name, kind, round(now.Sub(s.Created)), s.Dir)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tADDRESS\tROLE\tSUBNET\tPROGRAM\tSTATE\tPID\tUPTIME\tRESTARTS")
	for _, h := range s.Hosts {
		subnet := "-"
		if h.Subnet.IsValid() {
			subnet = h.Subnet.String()
		}
		line := fmt.Sprintf("%s\t%s\t%s\t%s", h.Name, h.Address, h.Role, subnet)
		if h.Error != "" {
			fmt.Fprintf(w, "%s\t-\tgone: %s\t-\t-\t-\n", line, h.Error)
			continue
		}
		if len(h.Programs) == 0 {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\n", line)
		}
		for _, p := range h.Programs {
			state, pid := "running", fmt.Sprint(p.PID)
			if !p.Running {
				state, pid = p.Exit, "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", line, p.Name, state, pid, round(p.Uptime(now)), p.Restarts)
			line = "\t\t\t"
		}
	}
	return w.Flush()
}

func round(d time.Duration) time.Duration { return d.Round(time.Second) }

func statusCommand(name *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "hosts, addresses, subnets and programs",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output=%s: want json, or leave it out", output)
			}
			l, err := Open(*name)
			if err != nil {
				return err
			}
			s := l.Status(c.Context())
			if output == "json" {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			return s.Print(c.OutOrStdout(), time.Now())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "your labs",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			labs, err := List()
			for _, l := range labs {
				state := "up"
				if l.Crashed {
					state = "crashed"
				}
				fmt.Fprintf(c.OutOrStdout(), "%s\t%s\n", l.Name, state)
			}
			return err
		},
	}
}
