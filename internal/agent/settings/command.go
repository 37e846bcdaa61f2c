package settings

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"weft/internal/agent/rundir"
)

// Command is "weft settings".
func Command() *cobra.Command {
	var runDir, output string
	c := &cobra.Command{
		Use:   "settings",
		Short: "the settings in force of the agent on this host, and where they come from",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output=%s: want json, or leave it out", output)
			}
			body, err := rundir.Ask(c.Context(), runDir, "/settings")
			if err != nil {
				return err
			}
			if output == "json" {
				_, err = c.OutOrStdout().Write(body)
				return err
			}
			var s List
			if err := json.Unmarshal(body, &s); err != nil {
				return fmt.Errorf("read the agent's settings: %w", err)
			}
			return s.print(c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&runDir, "run-dir", "/run/weft", "the agent's run directory")
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

func (s List) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SETTING\tVALUE\tFROM\tCHANGES")
	for _, x := range s.Settings {
		from, how := x.From, "restart"
		if x.Line > 0 && x.From == "file" {
			from = fmt.Sprintf("%s:%d", s.File, x.Line)
		}
		if x.Live {
			how = "live"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.Name, shown(x.Name, x.Values), from, how)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print settings: %w", err)
	}
	for _, text := range s.Warnings() {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
	return nil
}
