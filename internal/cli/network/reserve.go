package network

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store/etcd"
)

func reserveCommand(o *options) *cobra.Command {
	var public, publicV6 string
	c := &cobra.Command{
		Use:   "reserve SUBNET --public-ip=ADDRESS",
		Short: "make a subnet belong to a host for ever",
		Long: `Writes a lease without time to live: the host with the public address takes it at its next start, and nobody else gets
the subnet. When that host holds the subnet already, its lease becomes permanent.`,
		Example: `  weft network reserve 172.16.28.0/24 --public-ip=172.17.42.31
  weft network reserve 172.16.28.0/24,fd00:5:28::/64 --public-ip=172.17.42.31 --public-ipv6=2001:db8::31`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			want, err := etcd.ParseSubnets(args[0])
			if err != nil {
				return err
			}
			if err := publics(&want, public, publicV6); err != nil {
				return err
			}
			return o.with(c, func(ctx context.Context, client *etcd.Client) error {
				fresh, err := client.Reserve(ctx, want)
				if err != nil {
					return err
				}
				word := "unchanged"
				if fresh {
					word = "reserved"
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s %s\n", lease.Key(want), word)
				return err
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().StringVar(&public, "public-ip", "", "IPv4 address the other hosts reach the host by")
	c.Flags().StringVar(&publicV6, "public-ipv6", "", "IPv6 address the other hosts reach the host by")
	c.MarkFlagsOneRequired("public-ip", "public-ipv6")
	return c
}

func publics(l *api.Lease, v4, v6 string) error {
	for _, f := range []struct {
		flag, text string
		is6        bool
		to         *netip.Addr
	}{{"--public-ip", v4, false, &l.PublicIP}, {"--public-ipv6", v6, true, &l.PublicIPv6}} {
		if f.text == "" {
			continue
		}
		a, err := netip.ParseAddr(f.text)
		if err != nil || a.Is6() != f.is6 || a.Is4In6() || !a.IsGlobalUnicast() || a.Zone() != "" {
			return fmt.Errorf("%s=%s: want the host's own unicast address, such as 172.17.42.31 or, for --public-ipv6, 2001:db8::31", f.flag, f.text)
		}
		*f.to = a
	}
	return nil
}

func releaseCommand(o *options) *cobra.Command {
	yes := false
	c := &cobra.Command{
		Use:   "release SUBNET",
		Short: "delete a lease or reservation",
		Long: `Deletes the lease of a subnet after asking. A host that still runs leases the same subnet again at once; a reservation
it held is an ordinary lease then.`,
		Example: "  weft network release 172.16.28.0/24",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := etcd.KeyOf(args[0])
			if err != nil {
				return err
			}
			return o.with(c, func(ctx context.Context, client *etcd.Client) error {
				r, err := find(ctx, client, key)
				if err != nil {
					return err
				}
				if !yes && !confirmed(c, r) {
					return fmt.Errorf("release %s: not confirmed: answer y, or give --yes", key)
				}
				if err := client.Release(ctx, key, r.Modified); err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s released\n", key)
				return err
			})
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return o.subnets(c.Context()), cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func find(ctx context.Context, client *etcd.Client, key string) (claim.Record, error) {
	s, err := client.List(ctx)
	if err != nil {
		return claim.Record{}, err
	}
	var view claim.View
	view.Reset(s, time.Time{})
	r, ok := view.Record(key)
	if !ok {
		return r, fmt.Errorf("%w: %s: see \"weft network leases\"", etcd.ErrNoLease, key)
	}
	return r, nil
}

// confirmed asks on the terminal, or whatever standard input is.
func confirmed(c *cobra.Command, r claim.Record) bool {
	kind := "lease"
	if r.Reserved() {
		kind = "reservation"
	}
	x := rowOf(r.Lease)
	fmt.Fprintf(c.ErrOrStderr(), "Delete the %s %s of %s? [y/N] ", kind, r.Key, join(x.PublicIP, x.PublicV6))
	line, _ := bufio.NewReader(c.InOrStdin()).ReadString('\n') // no answer is no
	return strings.EqualFold(strings.TrimSpace(line), "y") || strings.EqualFold(strings.TrimSpace(line), "yes")
}

// subnets lists the subnets that are leased, for the shell's completion: quickly or not at all.
func (o *options) subnets(ctx context.Context) []string {
	if ctx == nil {
		ctx = context.Background()
	}
	at := o.store
	at.Timeout = time.Second
	client, err := etcd.Open(at)
	if err != nil {
		return nil
	}
	defer client.Close()
	s, err := client.List(ctx)
	if err != nil {
		return nil
	}
	var view claim.View
	view.Reset(s, time.Time{})
	var out []string
	for _, r := range view.Records() {
		x := rowOf(r.Lease)
		if text := join(x.Subnet, x.SubnetV6); text != "-" && text != "" {
			out = append(out, text+"\t"+join(x.PublicIP, x.PublicV6))
		}
	}
	return out
}
