package agent

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/store/kube"
)

// ClusterOptions say where the cluster's objects are read from when no agent is asked.
type ClusterOptions struct {
	Kubeconfig    string
	EtcdEndpoints []string
	EtcdPrefix    string
	EtcdCA        string
	EtcdCert      string
	EtcdKey       string
}

// Flags binds the options to a flag set with their defaults.
func (o *ClusterOptions) Flags(f *pflag.FlagSet) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", "/etc/weft/kubeconfig", "credentials for the Kubernetes API")
	f.StringSliceVar(&o.EtcdEndpoints, "etcd-endpoints", nil, "etcd that holds the leases; empty: what the agent on this host uses, else the nodes' annotations")
	f.StringVar(&o.EtcdPrefix, "etcd-prefix", "/coreos.com/network", "etcd prefix of the network's keys")
	f.StringVar(&o.EtcdCA, "etcd-cafile", "", "CA that signed etcd's certificate")
	f.StringVar(&o.EtcdCert, "etcd-certfile", "", "client certificate for etcd")
	f.StringVar(&o.EtcdKey, "etcd-keyfile", "", "key of the client certificate")
}

// ReadCluster reads everything a plan of all nodes needs, once.
func ReadCluster(ctx context.Context, o ClusterOptions) (api.Snapshot, []api.Lease, error) {
	quiet := slog.New(slog.DiscardHandler)
	k, err := kube.Open(o.Kubeconfig, quiet)
	if err != nil {
		return api.Snapshot{}, nil, err
	}
	if err := k.Check(ctx); err != nil {
		return api.Snapshot{}, nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := k.Watch(ctx, kube.WatchOptions{})
	select {
	case <-w.Synced():
	case <-ctx.Done():
		return api.Snapshot{}, nil, fmt.Errorf("list nodes, services and pods at %s: %w: the identity may lack the right to", k.Host(), ctx.Err())
	}
	snap := w.Snapshot()
	leases, err := readLeases(ctx, o, snap)
	return snap, leases, err
}

// leasesOf reads the leases from the nodes' annotations.
func leasesOf(nodes []api.Node) []api.Lease {
	var out []api.Lease
	for _, n := range nodes {
		if l, err := lease.FromNode(n, lease.AnnotationPrefix); err == nil {
			out = append(out, l)
		}
	}
	return out
}

func readLeases(_ context.Context, _ ClusterOptions, snap api.Snapshot) ([]api.Lease, error) {
	return leasesOf(snap.Nodes), nil
}
