// Package dockeropts is "weft docker-opts": the options that let dockerd use the subnet of the node.
//
// Floor 4, programs.
package dockeropts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/agent/rundir"
	"weft/internal/lease"
)

// dockerOptions are dockerd's flags, and with json its keys in daemon.json (dockerd(8)).
type dockerOptions struct {
	BIP         string `json:"bip"`
	MTU         int    `json:"mtu,omitempty"`
	IPMasq      *bool  `json:"ip-masq,omitempty"` // nil: not said
	IPv6        bool   `json:"ipv6,omitempty"`
	FixedCIDRv6 string `json:"fixed-cidr-v6,omitempty"`
}

// dockerOptionsOf is what makes dockerd's bridge the node's part of the network. Who masquerades is one of the two: where the agent does,
// dockerd must not.
func dockerOptionsOf(e lease.SubnetEnv, masquerade bool) (dockerOptions, error) {
	if !e.Subnet.IsValid() {
		return dockerOptions{}, errors.New("FLANNEL_SUBNET is missing: docker's bridge needs an IPv4 subnet, set Network in the network configuration")
	}
	o := dockerOptions{BIP: firstOf(e), MTU: e.MTU}
	if masquerade {
		docker := !e.IPMasq
		o.IPMasq = &docker
	}
	if e.IPv6Subnet.IsValid() {
		o.IPv6, o.FixedCIDRv6 = true, e.IPv6Subnet.Masked().String()
	}
	return o, nil
}

func firstOf(e lease.SubnetEnv) string {
	return fmt.Sprintf("%s/%d", e.Subnet.Masked().Addr().Next(), e.Subnet.Bits())
}

// dockerFlag is one of dockerd's flags with the variable it has in the environment file.
type dockerFlag struct{ variable, flag string }

func (o dockerOptions) flags() []dockerFlag {
	out := []dockerFlag{{"DOCKER_OPT_BIP", "--bip=" + o.BIP}}
	if o.IPMasq != nil {
		out = append(out, dockerFlag{"DOCKER_OPT_IPMASQ", fmt.Sprintf("--ip-masq=%t", *o.IPMasq)})
	}
	if o.MTU > 0 {
		out = append(out, dockerFlag{"DOCKER_OPT_MTU", fmt.Sprintf("--mtu=%d", o.MTU)})
	}
	if o.IPv6 {
		out = append(out, dockerFlag{"DOCKER_OPT_IPV6", "--ipv6=true"}, dockerFlag{"DOCKER_OPT_FIXED_CIDR_V6", "--fixed-cidr-v6=" + o.FixedCIDRv6})
	}
	return out
}

// line is the flags as dockerd's command line takes them.
func (o dockerOptions) line() string {
	var all []string
	for _, f := range o.flags() {
		all = append(all, f.flag)
	}
	return strings.Join(all, " ")
}

// env is the file that flannel's mk-docker-opts.sh writes: a variable for each flag, and one of all of them.
func (o dockerOptions) env(key string, individual, combined bool) string {
	var b strings.Builder
	if individual {
		for _, f := range o.flags() {
			fmt.Fprintf(&b, "%s=%q\n", f.variable, f.flag)
		}
	}
	if combined {
		fmt.Fprintf(&b, "%s=%q\n", key, " "+o.line())
	}
	return b.String()
}

// dockerCommand is what "weft docker-opts" is told.
type dockerCommand struct {
	subnetFile, runDir, to, output, key string
	individual, combined, noMasq        bool
}

// Command is "weft docker-opts".
func Command() *cobra.Command {
	var d dockerCommand
	c := &cobra.Command{
		Use:   "docker-opts",
		Short: "what dockerd needs to put its containers into the pod network",
		Long: `Prints what dockerd needs so that its bridge is this node's part of the pod network: --bip, --mtu, --ip-masq, and with IPv6 --ipv6 and
--fixed-cidr-v6. They come from the file that the agent writes when the node has its subnet. dockerd reads them at its start only.

  weft docker-opts -d /run/docker_opts.env            an environment file, as flannel's mk-docker-opts.sh writes it
  weft docker-opts -o json > /etc/docker/daemon.json  dockerd's own file
  dockerd $(weft docker-opts -o flags)`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context(), c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVarP(&d.subnetFile, "subnet-file", "f", "/run/flannel/subnet.env", "file with the node's subnet, the agent's --subnet-file")
	f.StringVar(&d.runDir, "run-dir", "/run/weft", "the agent's run directory: an agent that runs is asked whether the file is its own")
	f.StringVarP(&d.to, "docker-env", "d", "", "write to this file; empty: standard output")
	f.StringVarP(&d.output, "output", "o", "env", "env (variables), flags (one line) or json (daemon.json)")
	f.StringVarP(&d.key, "key", "k", "DOCKER_OPTS", "name of the variable with all flags")
	f.BoolVarP(&d.individual, "individual", "i", false, "only the variables with one flag each")
	f.BoolVarP(&d.combined, "combined", "c", false, "only the variable with all flags")
	f.BoolVarP(&d.noMasq, "no-ip-masq", "m", false, "say nothing of --ip-masq")
	return c
}

// variable is the name of a shell's variable.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (d dockerCommand) run(ctx context.Context, out io.Writer) error {
	if !slices.Contains([]string{"env", "flags", "json"}, d.output) {
		return fmt.Errorf("--output=%s: want env or flags or json", d.output)
	}
	if !variable.MatchString(d.key) {
		return fmt.Errorf("--key=%s: want the name of a shell variable such as DOCKER_OPTS", d.key)
	}
	e, err := d.read(ctx)
	if err != nil {
		return err
	}
	o, err := dockerOptionsOf(e, !d.noMasq)
	if err != nil {
		return fmt.Errorf("%s: %w", d.subnetFile, err)
	}
	text, err := d.render(o)
	if err != nil {
		return err
	}
	if d.to == "" {
		_, err = io.WriteString(out, text)
		return err
	}
	if err := rundir.WriteFile(d.to, []byte(text), 0o644); err != nil {
		return fmt.Errorf("--docker-env: %w", err)
	}
	return nil
}

func (d dockerCommand) render(o dockerOptions) (string, error) {
	switch d.output {
	case "flags":
		return o.line() + "\n", nil
	case "json":
		b, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			return "", fmt.Errorf("encode daemon.json: %w", err)
		}
		return string(b) + "\n", nil
	}
	both := d.individual == d.combined
	return o.env(d.key, both || d.individual, both || d.combined), nil
}

// read reads the node's subnet and, where an agent runs, checks that it is what the agent holds.
func (d dockerCommand) read(ctx context.Context) (lease.SubnetEnv, error) {
	body, asked := rundir.Ask(ctx, d.runDir, "/status")
	var s struct {
		Subnet string `json:"subnet"`
	}
	if asked == nil {
		if err := json.Unmarshal(body, &s); err != nil {
			return lease.SubnetEnv{}, fmt.Errorf("read the agent's status: %w", err)
		}
	}
	held := s.Subnet
	text, err := os.ReadFile(d.subnetFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && asked == nil && held == "":
		return lease.SubnetEnv{}, fmt.Errorf("%s: not there yet: the agent that runs here has no subnet: wait for it (weft status)", d.subnetFile)
	case errors.Is(err, fs.ErrNotExist) && asked == nil:
		return lease.SubnetEnv{}, fmt.Errorf("%s: not there, but the agent holds %s: name the agent's --subnet-file", d.subnetFile, held)
	case errors.Is(err, fs.ErrNotExist):
		return lease.SubnetEnv{}, fmt.Errorf("%s: not there: start weft agent on this host, or name its --subnet-file", d.subnetFile)
	case err != nil:
		return lease.SubnetEnv{}, fmt.Errorf("--subnet-file: %w", err)
	}
	e, err := lease.ParseSubnetEnv(text)
	if err != nil {
		return e, fmt.Errorf("%s: %w", d.subnetFile, err)
	}
	if e.Subnet.IsValid() && held != "" && e.Subnet.String() != held {
		return e, fmt.Errorf("%s: it says %s, but the agent holds %s: it is older than the lease, wait until the agent has written it (weft status)",
			d.subnetFile, e.Subnet, held)
	}
	return e, nil
}
