package settings

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Setting is a setting of the agent and where its value comes from.
type Setting struct {
	Name   string   `json:"name"`
	Values []string `json:"values"` // one, unless the flag may be repeated
	From   string   `json:"from"`   // "flag", "file" or "default"
	Line   int      `json:"line,omitempty"`
	Live   bool     `json:"live"` // a change in the file is taken up without a restart
}

// List is what the agent was told.
type List struct {
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

// List is the configuration in force.
func (l *Live) List() List {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := List{File: l.now.File, TakenUp: l.at, Problem: l.problem, Pending: l.now.pending}
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

// Warnings are those for weft status.
func (s List) Warnings() []string {
	var out []string
	if s.Problem != "" {
		out = append(out, "the configuration file is not taken up, the settings in force stay: "+s.Problem)
	}
	for _, p := range s.Pending {
		out = append(out, "needs restart: "+p)
	}
	return out
}
