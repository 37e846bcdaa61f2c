package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/agent/rundir"
)

// Setting is a setting of the agent and where its value comes from.
type Setting struct {
	Name   string   `json:"name"`
	Values []string `json:"values"` // one, unless the flag may be repeated
	From   string   `json:"from"`   // "flag", "file" or "default"
	Line   int      `json:"line,omitempty"`
	Live   bool     `json:"live"` // a change in the file is taken up without a restart
}

// Settings is what the agent was told.
type Settings struct {
	File     string    `json:"file,omitempty"`
	TakenUp  time.Time `json:"takenUp,omitzero"`   // the last change of the file
	Problem  string    `json:"problem,omitempty"`  // why the file's content is not in force
	Pending  []string  `json:"pending,omitempty"`  // what in the file needs a restart
	Settings []Setting `json:"settings,omitempty"` // by name
}

// each calls f with every flag's name and value.
func (c Config) each(f func(name string, v []string)) {
	var blank Config
	flags := flagSet(&blank)
	saved := c
	blank = saved // the flags are bound to its fields
	flags.VisitAll(func(x *pflag.Flag) { f(x.Name, slices.Clone(valuesOf(x))) })
}

// shown is a value as it may be shown.
func shown(name string, v []string) string {
	text := strings.Join(v, ",")
	if text == "" {
		return `""`
	}
	if slices.Contains(secretFlags, name) {
		return "(hidden)"
	}
	return text
}

// list is the configuration in force.
func (l *liveConfig) list() Settings {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Settings{File: l.now.File, TakenUp: l.at, Problem: l.problem, Pending: l.now.pending}
	l.now.each(func(name string, v []string) {
		x := Setting{Name: name, Values: v, From: "default", Line: l.now.inFile[name], Live: slices.Contains(liveFlags, name)}
		if _, given := l.now.given[name]; given {
			x.From = "flag"
		} else if x.Line > 0 {
			x.From = "file"
		}
		if slices.Contains(secretFlags, name) {
			x.Values = []string{shown(name, v)}
		}
		s.Settings = append(s.Settings, x)
	})
	return s
}

// warnings are those for weft status.
func (s Settings) warnings() []string {
	var out []string
	if s.Problem != "" {
		out = append(out, "the configuration file is not taken up, the settings in force stay: "+s.Problem)
	}
	for _, p := range s.Pending {
		out = append(out, "needs restart: "+p)
	}
	return out
}

// SettingsCommand is "weft settings".
func SettingsCommand() *cobra.Command {
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
			var s Settings
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

func (s Settings) print(w io.Writer) error {
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
	for _, text := range s.warnings() {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
	return nil
}
