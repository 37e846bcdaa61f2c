package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"weft/internal/agent/settings/conffile"
	"weft/internal/store/file"
)

// liveFlags are the flags whose values in the configuration file are taken up while the agent runs. The others need a restart.
var liveFlags = []string{
	"proxy-mode", "ip-masq", "masquerade-pods", "non-masquerade-cidr", "ip-masq-random-fully", "masquerade-mark-bit", "forward-rules",
	"edge-check", "verbose", "nodeport-addresses", "masquerade-all", "localhost-nodeports", "nodeport-source-ranges",
	"conntrack-tcp-be-liberal", "conntrack-max-per-core", "conntrack-min", "conntrack-tcp-timeout-established",
	"conntrack-tcp-timeout-close-wait", "conntrack-udp-timeout", "conntrack-udp-timeout-stream",
}

// secretFlags have values that nobody is shown.
var secretFlags = []string{"etcd-password"}

// flagSet is a configuration's flags, bound to it and at their defaults.
func flagSet(c *Config) *pflag.FlagSet {
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	c.Flags(f)
	return f
}

// valuesOf is a flag's value as a list: that of a flag that may not be repeated has one member.
func valuesOf(f *pflag.Flag) []string {
	if s, ok := f.Value.(pflag.SliceValue); ok {
		return s.GetSlice()
	}
	return []string{f.Value.String()}
}

// setValues gives a flag values as valuesOf returned them.
func setValues(f *pflag.Flag, to []string) error {
	if s, ok := f.Value.(pflag.SliceValue); ok {
		return s.Replace(to)
	}
	if len(to) != 1 {
		return errors.New("it takes one value, not a list")
	}
	return f.Value.Set(to[0])
}

// setEntry gives a flag what the file says, a single value as on the command line.
func setEntry(f *pflag.Flag, e conffile.Entry) error {
	if _, many := f.Value.(pflag.SliceValue); e.List && !many {
		return errors.New("it takes one value, not a list")
	}
	if e.List {
		return setValues(f, e.Values)
	}
	return f.Value.Set(e.Values[0])
}

// givenFlags are those of a command line.
func givenFlags(f *pflag.FlagSet) map[string][]string {
	out := map[string][]string{}
	f.Visit(func(f *pflag.Flag) { out[f.Name] = slices.Clone(valuesOf(f)) })
	return out
}

// Configured is a configuration and where its values come from.
type Configured struct {
	Config
	inFile  map[string]int // line by flag, without those that the command line gives too
	pending []string       // what in the file needs a restart
}

// withFile is the configuration of a command line and of the file's content, checked as a whole: a flag on the command line counts more
// than the file, the file more than the default. Of what needs a restart the values in force stay, when there are any.
func (c Config) withFile(data []byte, inForce *Configured) (*Configured, error) {
	entries, err := conffile.Parse(c.File, data)
	if err != nil {
		return nil, err
	}
	next := &Configured{Config: Config{Version: c.Version, given: c.given, level: c.level}, inFile: map[string]int{}}
	flags := flagSet(&next.Config)
	if err := next.take(flags, entries, c.File); err != nil {
		return nil, err
	}
	for name, v := range c.given {
		if f := flags.Lookup(name); f != nil {
			if err := setValues(f, v); err != nil {
				return nil, fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	if err := next.check(c.File); err != nil || inForce == nil {
		return next, err
	}
	before := flagValues(inForce.Config)
	flags.VisitAll(func(f *pflag.Flag) {
		now := before[f.Name]
		if slices.Contains(liveFlags, f.Name) || slices.Equal(valuesOf(f), now) {
			return
		}
		next.pending = append(next.pending, fmt.Sprintf("%s: %s in %s, %s in force", f.Name, shown(f.Name, valuesOf(f)), c.File, shown(f.Name, now)))
		err = errors.Join(err, setValues(f, now))
	})
	if err != nil {
		return nil, err
	}
	return next, next.check(c.File)
}

// flagValues are the values of a configuration's flags.
func flagValues(c Config) map[string][]string {
	out := map[string][]string{}
	c.each(func(name string, v []string) { out[name] = v })
	return out
}

// take sets the flags of the entries. Those that the command line gives are only checked.
func (c *Configured) take(flags *pflag.FlagSet, entries []conffile.Entry, name string) error {
	for _, e := range entries {
		f := flags.Lookup(e.Key)
		if e.Key == "apiVersion" || e.Key == "kind" {
			return fmt.Errorf("%s:%d: %s: %s: this is another program's configuration; weft's is lines \"flag-name: value\". What the fields of a "+
				"KubeProxyConfiguration are called there: docs/migration/from-kube-proxy.md", name, e.Line, e.Key, strings.Join(e.Values, ","))
		}
		if f == nil {
			return fmt.Errorf("%s:%d: %s: there is no such setting%s: weft settings lists all", name, e.Line, e.Key, nearest(flags, e.Key))
		}
		if e.Key == "config" {
			return fmt.Errorf("%s:%d: config: a configuration file names no other: leave it out", name, e.Line)
		}
		if err := setEntry(f, e); err != nil {
			return fmt.Errorf("%s:%d: %s: %s: %w: want a %s", name, e.Line, e.Key, strings.Join(e.Values, ","), err, f.Value.Type())
		}
		if _, given := c.given[e.Key]; !given {
			c.inFile[e.Key] = e.Line
		}
	}
	return nil
}

// nearest is a hint at the flag that was meant.
func nearest(flags *pflag.FlagSet, key string) string {
	plain := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
	}
	out := ""
	flags.VisitAll(func(f *pflag.Flag) {
		if plain(f.Name) == plain(key) || len(key) > 3 && strings.HasPrefix(f.Name, strings.ToLower(key)) {
			out = ", do you mean " + f.Name
		}
	})
	return out
}

// check validates; the error names the line when the value that is wrong is the file's.
func (c *Configured) check(name string) error {
	err := c.Validate()
	if err == nil {
		return nil
	}
	text, ok := strings.CutPrefix(err.Error(), "--")
	if !ok {
		return err
	}
	key := text[:strings.IndexFunc(text+" ", func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })]
	if line, ok := c.inFile[key]; ok {
		return fmt.Errorf("%s:%d: %w", name, line, err)
	}
	return err
}

// setLevel makes the log as talkative as the configuration says.
func (c *Config) setLevel() {
	if c.level == nil {
		return
	}
	c.level.Set(slog.LevelInfo)
	if c.Verbose > 0 {
		c.level.Set(slog.LevelDebug)
	}
}

// AtStart is the configuration of the command line and the file, if there is one.
func (c Config) AtStart() (*Configured, error) {
	if c.File == "" {
		out := &Configured{Config: c}
		out.setLevel()
		return out, out.Validate()
	}
	data, err := file.Read(c.File)
	if err != nil {
		return nil, fmt.Errorf("--config=%s: %w", c.File, err)
	}
	out, err := c.withFile(data, nil)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	out.fileData = data
	out.setLevel()
	return out, nil
}
