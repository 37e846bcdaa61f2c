package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store/etcd"
	"weft/internal/store/kube"
)

// row is one lease as "weft network leases" shows it.
type row struct {
	Subnet    string    `json:"subnet,omitempty"`
	SubnetV6  string    `json:"subnetV6,omitempty"`
	Key       string    `json:"key,omitempty"` // in etcd
	Node      string    `json:"node,omitempty"`
	PublicIP  string    `json:"publicIP,omitempty"`
	PublicV6  string    `json:"publicIPv6,omitempty"`
	Backend   string    `json:"backend,omitempty"`
	Permanent bool      `json:"permanent"`
	Idle      bool      `json:"idle,omitempty"` // reserved, and nobody has taken it up
	Expires   time.Time `json:"expires,omitzero"`
	Refused   string    `json:"refused,omitempty"` // why hosts do not act on it
	Reason    string    `json:"reason,omitempty"`  // the same in one word
}

func leasesCommand(o *options) *cobra.Command {
	var output, kubeconfig, prefix string
	c := &cobra.Command{
		Use:   "leases",
		Short: "list the leases: subnet, host, backend, expiry, and why one is refused",
		Long: `Lists the leases in etcd. With --kubeconfig the hosts get their nodes' names; and when --etcd-endpoints is not
given, the leases are the nodes' podCIDRs and annotations (--kube-subnet-mgr). What only one host refuses, because of a
route of its own, that host's "weft status" shows.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: %q is not a format: write table or json", output)
			}
			var nodes []api.Node
			if kubeconfig != "" {
				k, err := kube.Open(kubeconfig, slog.New(slog.DiscardHandler))
				if err != nil {
					return err
				}
				if nodes, err = k.Nodes(c.Context()); err != nil {
					return err
				}
				if !c.Flags().Changed("etcd-endpoints") {
					p, err := lease.ParseAnnotationPrefix(prefix)
					if err != nil {
						return fmt.Errorf("--kube-annotation-prefix: %w", err)
					}
					return printRows(c.OutOrStdout(), nodeRows(nodes, p), output == "json")
				}
			}
			return o.with(c, func(ctx context.Context, client *etcd.Client) error {
				rows, err := etcdRows(ctx, client, nodes)
				if err != nil {
					return err
				}
				return printRows(c.OutOrStdout(), rows, output == "json")
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "credentials for the Kubernetes API, for the nodes' names or their leases")
	c.Flags().StringVar(&prefix, "kube-annotation-prefix", strings.TrimSuffix(lease.AnnotationPrefix, "/"), "what the keys of the nodes' annotations begin with")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// etcdRows reads the leases and how long they still live.
func etcdRows(ctx context.Context, client *etcd.Client, nodes []api.Node) ([]row, error) {
	s, err := client.List(ctx)
	if err != nil {
		return nil, err
	}
	var ids []int64
	for _, e := range s.Entries {
		if e.Lease != 0 {
			ids = append(ids, e.Lease)
		}
	}
	expiry, err := client.Expiries(ctx, ids)
	if err != nil {
		return nil, err
	}
	var view claim.View
	view.Reset(s, time.Time{})
	refused := map[string]claim.Refusal{}
	_, all := view.Peers(api.Lease{}, nil)
	for _, r := range all {
		refused[r.Key] = r
	}
	rows := []row{}
	for _, r := range view.Records() {
		x := rowOf(r.Lease)
		x.Key, x.Permanent, x.Idle, x.Expires = r.Key, r.Reserved(), r.Idle(view.Config), expiry[r.EtcdLease]
		x.Refused, x.Reason = refused[r.Key].Reason, refused[r.Key].Kind
		x.Node = nodeOf(nodes, r.Lease)
		if x.Subnet+x.SubnetV6 == "" {
			x.Subnet = r.Key // its name is all there is
		}
		rows = append(rows, x)
	}
	return rows, nil
}

// nodeRows reads the leases from the nodes; each lasts as long as its node.
func nodeRows(nodes []api.Node, prefix string) []row {
	rows := []row{}
	for _, n := range nodes {
		l, err := lease.FromNode(n, prefix)
		x := rowOf(l)
		x.Node, x.Permanent = n.Name, true
		if err != nil {
			x.Refused, x.Reason = err.Error(), claim.Malformed
			for _, p := range n.PodCIDRs {
				if p.Addr().Is6() {
					x.SubnetV6 = p.String()
				} else {
					x.Subnet = p.String()
				}
			}
		}
		rows = append(rows, x)
	}
	return rows
}

func rowOf(l api.Lease) row {
	x := row{Node: l.Node, Backend: l.BackendType}
	if l.Subnet.IsValid() {
		x.Subnet = l.Subnet.String()
	}
	if l.SubnetV6.IsValid() {
		x.SubnetV6 = l.SubnetV6.String()
	}
	if l.PublicIP.IsValid() {
		x.PublicIP = l.PublicIP.String()
	}
	if l.PublicIPv6.IsValid() {
		x.PublicV6 = l.PublicIPv6.String()
	}
	return x
}

func nodeOf(nodes []api.Node, l api.Lease) string {
	for _, n := range nodes {
		for _, a := range n.Addresses {
			if a == l.PublicIP || a == l.PublicIPv6 {
				return n.Name
			}
		}
	}
	return ""
}

func printRows(w io.Writer, rows []row, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(rows)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SUBNET\tNODE\tPUBLIC IP\tBACKEND\tEXPIRES\tREFUSED")
	for _, x := range rows {
		expires := "never"
		switch {
		case x.Idle:
			expires = "never, not taken up"
		case !x.Permanent && x.Expires.IsZero():
			expires = "now"
		case !x.Permanent:
			expires = x.Expires.UTC().Format("2006-01-02T15:04Z")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", join(x.Subnet, x.SubnetV6), dash(x.Node), join(x.PublicIP, x.PublicV6), dash(x.Backend),
			expires, dash(x.Refused))
	}
	return t.Flush()
}
