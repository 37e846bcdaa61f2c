package world

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/store/etcd"
	"weft/internal/store/kube"
)

// Options say where the cluster's objects are read from when no agent is asked.
type Options struct {
	Kubeconfig    string
	EtcdEndpoints []string
	EtcdPrefix    string
	EtcdCA        string
	EtcdCert      string
	EtcdKey       string
	EtcdUsername  string
	EtcdPassword  string
}

// Flags binds the options to a flag set with their defaults.
func (o *Options) Flags(f *pflag.FlagSet) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "credentials for the Kubernetes API, of one who may list pods; empty: "+
		"$KUBECONFIG, else the first there is of "+strings.Join(kubeconfigs(), ", "))
	f.StringSliceVar(&o.EtcdEndpoints, "etcd-endpoints", nil, "etcd that holds the leases; empty: what the nodes' agents use, else the nodes' annotations")
	f.StringVar(&o.EtcdPrefix, "etcd-prefix", "/coreos.com/network", "etcd prefix of the network's keys")
	f.StringVar(&o.EtcdCA, "etcd-cafile", "", "CA that signed etcd's certificate")
	f.StringVar(&o.EtcdCert, "etcd-certfile", "", "client certificate for etcd")
	f.StringVar(&o.EtcdKey, "etcd-keyfile", "", "key of the client certificate")
	f.StringVar(&o.EtcdUsername, "etcd-username", "", "user name for etcd")
	f.StringVar(&o.EtcdPassword, "etcd-password", "", "password for etcd")
}

// kubeconfigs lists where credentials are looked for, best first: the operator's own, the server's admin, the node's.
func kubeconfigs() []string {
	return []string{"~/.kube/config", "/var/lib/weft-server/admin.kubeconfig", "/etc/weft/kubeconfig"}
}

func findKubeconfig() (string, error) {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return path, nil
	}
	for _, path := range kubeconfigs() {
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				continue
			}
			path = filepath.Join(home, rest)
		}
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no kubeconfig: give --kubeconfig, or put one at one of %s", strings.Join(kubeconfigs(), ", "))
}

// Read reads everything a plan of all nodes needs, once.
func Read(ctx context.Context, o Options) (api.Snapshot, []api.Lease, error) {
	if o.Kubeconfig == "" {
		var err error
		if o.Kubeconfig, err = findKubeconfig(); err != nil {
			return api.Snapshot{}, nil, err
		}
	}
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

// leasesOf reads the leases from the nodes' annotations, whose prefix the facts of those with an agent tell.
func leasesOf(nodes []api.Node) []api.Lease {
	prefix := lease.AnnotationPrefix
	for _, n := range nodes {
		if f, ok, err := facts.Read(n); err == nil && ok && f.AnnotationPrefix != "" {
			prefix = f.AnnotationPrefix
		}
	}
	var out []api.Lease
	for _, n := range nodes {
		if l, err := lease.FromNode(n, prefix); err == nil {
			out = append(out, l)
		}
	}
	return out
}

// readLeases reads the leases from etcd where its endpoints are given, or known from the facts the nodes published, else from the
// nodes' annotations.
func readLeases(ctx context.Context, o Options, snap api.Snapshot) ([]api.Lease, error) {
	if len(o.EtcdEndpoints) == 0 {
		for _, n := range snap.Nodes {
			if f, ok, err := facts.Read(n); err == nil && ok && len(f.Etcd) > 0 {
				o.EtcdEndpoints, o.EtcdPrefix = f.Etcd, f.EtcdPrefix
			}
		}
	}
	if len(o.EtcdEndpoints) == 0 {
		return leasesOf(snap.Nodes), nil
	}
	kv, err := etcd.Open(etcd.Config{
		Endpoints: o.EtcdEndpoints, Prefix: o.EtcdPrefix, CAFile: o.EtcdCA, CertFile: o.EtcdCert, KeyFile: o.EtcdKey,
		Username: o.EtcdUsername, Password: o.EtcdPassword,
	})
	if err != nil {
		return nil, err
	}
	defer kv.Close()
	all, err := kv.List(ctx)
	if err != nil {
		return nil, err
	}
	var view claim.View
	view.Reset(all, time.Now())
	leases, _ := view.Peers(api.Lease{}, nil) // what is refused here, the agents refuse too and report
	return leases, nil
}
