// Package cleanup is "weft cleanup": it removes what weft made in the kernel of this host, or what a flannel or kube-proxy before it left.
//
// Floor 4, programs.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/internal/agent/rundir"
	"weft/internal/kernel"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/kernel/xt"
	"weft/internal/netstate"
	"weft/internal/nft"
	values "weft/internal/xt"
)

// cleanup is what "weft cleanup" is told.
type cleanup struct {
	runDir               string
	flannel, keepNetwork bool
	kubeProxy, services  bool
	dryRun               bool
	out                  io.Writer
}

// Command is "weft cleanup".
func Command() *cobra.Command {
	var o cleanup
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "remove what weft, or a flannel or kube-proxy before it, left in this host's kernel",
		Long: `Removes what bears weft's mark from this host: its devices with all that is on them, routes, table inet weft and iptables chains.
The agent must not run.

With --keep-network the way to the pods stays as it is, without the mark: devices, addresses, neighbours, forwarding entries and routes
are then as flannel makes them, and a flanneld that takes the host over finds them. Rules go.

With --flannel weft's own are left alone and the rules of a flannel that no longer runs here go: the agent, which must run and have its
rules in place, does the same work. With --kube-proxy the same for the rules of a kube-proxy.

With --services only the rules of services go; what carries and masquerades pods' packets stays.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.out = c.OutOrStdout()
			switch {
			case o.flannel:
				return o.cleanFlannel(c.Context())
			case o.kubeProxy:
				return o.cleanKubeProxy(c.Context())
			case o.services:
				return o.cleanServices(c.Context())
			}
			return o.clean(c.Context())
		},
	}
	c.Flags().BoolVar(&o.flannel, "flannel", false, "remove flannel's rules instead of weft's objects")
	c.Flags().BoolVar(&o.kubeProxy, "kube-proxy", false, "remove kube-proxy's rules instead of weft's objects")
	c.Flags().BoolVar(&o.services, "services", false, "remove weft's rules of services only")
	c.Flags().BoolVar(&o.keepNetwork, "keep-network", false, "leave devices, addresses and routes, only without weft's mark")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "print the commands, change nothing")
	c.Flags().StringVar(&o.runDir, "run-dir", "/run/weft", "the agent's run directory")
	c.MarkFlagsMutuallyExclusive("flannel", "keep-network", "kube-proxy", "services")
	return c
}

// clean removes what bears our mark: rules first, so that no packet is rewritten for a way that is gone.
func (o cleanup) clean(ctx context.Context) error {
	if err := os.MkdirAll(o.runDir, 0o755); err != nil {
		return fmt.Errorf("--run-dir=%s: %w", o.runDir, err)
	}
	unlock, err := rundir.Lock(filepath.Join(o.runDir, "agent.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	err = errors.Join(
		o.tables(nft.Op{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}),
		o.chains(ctx, func(have values.Ruleset) []values.Op { return values.Diff(values.Ruleset{}, have) }),
	)
	return errors.Join(err, o.network(ctx))
}

// network removes our objects, or takes their mark from them.
func (o cleanup) network(ctx context.Context) error {
	n, err := kernel.Open("")
	if err != nil {
		return fmt.Errorf("open the host's network: %w", err)
	}
	defer n.Close()
	have, err := n.Read(ctx, netstate.New())
	if err != nil {
		return err
	}
	want := netstate.New()
	if o.keepNetwork {
		want = unmarked(have)
	}
	ops := netstate.Diff(want, have)
	for _, op := range ops {
		fmt.Fprintln(o.out, op)
	}
	if o.dryRun {
		return nil
	}
	if err := n.Apply(ctx, ops); err != nil {
		return err
	}
	_, err = n.DropNexthops(ctx) // no route that stays names one now
	return err
}

// unmarked is a state whose objects are nobody's: links without our alias, routes as ip-route(8) makes them. Routes that lead nowhere go:
// others know nothing of them. So do TUN devices: without the agent they carry nothing, and another program makes its own.
func unmarked(have netstate.State) netstate.State {
	want, tun := netstate.New(), map[string]bool{}
	for _, l := range netstate.Of[netstate.Link](have) {
		tun[l.Name] = l.Type == netstate.TypeTUN
	}
	for _, o := range have.All() {
		if tun[o.On()] {
			continue
		}
		switch o := o.(type) {
		case netstate.Link:
			if o.Alias = ""; !tun[o.Name] {
				want.Add(o)
			}
		case netstate.Route:
			if o.Type != "" {
				continue
			}
			if o.Proto == 0 {
				o.Proto = unix.RTPROT_BOOT
			}
			want.Add(o)
		default:
			want.Add(o)
		}
	}
	return want
}

// tables removes tables of nf_tables, those that are there.
func (o cleanup) tables(ops ...nft.Op) error {
	c, err := kernelnft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	for _, op := range ops {
		t, err := c.Outline(op.Family, op.Table)
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		fmt.Fprintf(o.out, "nft %s\n", op)
		if o.dryRun {
			continue
		}
		if err := c.Apply([]nft.Op{op}); err != nil {
			return err
		}
	}
	return nil
}

// chains applies ops to the iptables rules of each variant in use.
func (o cleanup) chains(ctx context.Context, plan func(have values.Ruleset) []values.Op) error {
	variants := []xt.Kernel{{}}
	other, ok, err := xt.Other(ctx)
	if ok && (other.Variant != "legacy" || legacyInUse()) {
		variants = append(variants, other)
	}
	errs := []error{err}
	for _, k := range variants {
		have, err := k.Read(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ops := plan(have)
		for _, op := range ops {
			fmt.Fprintln(o.out, op)
		}
		if len(ops) > 0 && !o.dryRun {
			errs = append(errs, k.Apply(ctx, ops))
		}
	}
	return errors.Join(errs...)
}

// legacyInUse reports whether this network namespace has tables of the old iptables: asking its programs would make them.
func legacyInUse() bool {
	for _, f := range []string{"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"} {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
			return true
		}
	}
	return false
}
