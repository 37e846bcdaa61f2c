package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"weft/internal/lab/host"
	"weft/internal/lab/topology"
)

// Programs of a cluster by the names Start, Signal and the rest know them by.
const (
	Server = "server" // weft-server, on the master
	Agent  = "agent"  // weft agent, on every node
)

// Files on the hosts.
const (
	serverData   = "/var/lib/weft-server"
	netConf      = "/etc/weft/net-conf.json"
	adminConfig  = "/root/.kube/config"
	agentConfig  = "/etc/weft/kubeconfig"
	adminWritten = serverData + "/admin.kubeconfig"
)

// startCluster starts the topology's programs and waits until all is ready.
func (l *Lab) startCluster(ctx context.Context, p *progress) error {
	t := l.info.Topology
	masters := t.With(topology.Master)
	if len(masters) == 0 {
		return nil
	}
	master := masters[0]
	conf, err := t.NetConf()
	if err != nil {
		return fmt.Errorf("encode net-conf.json: %w", err)
	}
	for _, h := range t.Hosts {
		if err := l.WriteFile(ctx, h.Name, netConf, conf); err != nil {
			return err
		}
	}
	if err := l.Run(ctx, master.Name, Server, serverArgv(t, master)...); err != nil {
		return err
	}
	if err := l.WaitReady(ctx, master.Name, Server); err != nil {
		return err
	}
	if err := l.copyAdmin(); err != nil {
		return err
	}
	p.done("API ready at https://%s, etcd at %s", netip.AddrPortFrom(master.Address, uint16(t.Cluster.SecurePort)), etcdURL(master))
	if t.Cluster.LeaseStore == "etcd" {
		if _, err := l.Exec(ctx, master.Name, "weft", "network", "apply", "-f", netConf, "--etcd-endpoints="+etcdURL(master)); err != nil {
			return fmt.Errorf("write network configuration: %w", err)
		}
		p.done("network %s with backend %s", t.Cluster.Network, t.Cluster.Backend.Type)
	}
	if err := l.startAgents(ctx, master); err != nil {
		return err
	}
	return l.waitNodes(ctx, master, p)
}

func etcdURL(master topology.Host) string {
	return "http://" + netip.AddrPortFrom(master.Address, 2379).String()
}

func serverArgv(t topology.Topology, master topology.Host) []string {
	var nodes []string
	for _, n := range t.With(topology.Node) {
		nodes = append(nodes, n.Name)
	}
	argv := []string{
		"weft-server",
		"--data-dir=" + serverData,
		"--listen-client-urls=" + etcdURL(master),
		"--service-cluster-ip-range=" + t.Cluster.ServiceRange.String(),
		"--cluster-cidr=" + t.Cluster.Network.String(),
		"--secure-port=" + strconv.Itoa(t.Cluster.SecurePort),
		"--advertise-address=" + master.Address.String(),
		"--node-names=" + strings.Join(nodes, ","),
	}
	if t.Cluster.LeaseStore == "kube" {
		argv = append(argv, "--allocate-node-cidrs=true", "--node-cidr-mask-size="+strconv.Itoa(t.Cluster.SubnetLen))
	}
	return mergeFlags(argv, t.Cluster.ServerFlags)
}

func agentArgv(t topology.Topology, master, node topology.Host) []string {
	c := t.Cluster
	argv := []string{
		"weft", "agent",
		"--node-name=" + node.Name,
		"--kubeconfig=" + agentConfig,
		"--iface=eth0",
		"--attach=" + c.Attach,
		"--bridge=" + c.Bridge,
		"--masquerade-pods=" + strconv.FormatBool(c.MasqueradePods),
		"--proxy-mode=" + c.ProxyMode,
		"--cluster-cidr=" + c.Network.String(),
		"--service-cluster-ip-range=" + c.ServiceRange.String(),
	}
	if c.LeaseStore == "kube" {
		argv = append(argv, "--kube-subnet-mgr", "--net-config-path="+netConf)
	} else {
		argv = append(argv, "--etcd-endpoints="+etcdURL(master))
		if node.Subnet.IsValid() {
			argv = append(argv, "--subnet="+node.Subnet.String())
		}
	}
	return mergeFlags(argv, c.AgentFlags)
}

// mergeFlags adds flags to a command line; one that is there already is replaced.
func mergeFlags(argv, flags []string) []string {
	argv = slices.Clone(argv)
	for _, f := range flags {
		key := flagName(f)
		i := slices.IndexFunc(argv, func(have string) bool { return strings.HasPrefix(have, "-") && flagName(have) == key })
		if i < 0 {
			argv = append(argv, f)
		} else {
			argv[i] = f
		}
	}
	return argv
}

func flagName(flag string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
	return name
}

// copyAdmin gives every host the admin's credentials where kubectl looks for them.
func (l *Lab) copyAdmin() error {
	master := l.info.Topology.With(topology.Master)[0]
	for _, h := range l.info.Topology.Hosts {
		if err := l.copyFile(master.Name, adminWritten, h.Name, adminConfig); err != nil {
			return fmt.Errorf("copy admin's credentials: %w", err)
		}
	}
	return nil
}

// copyFile copies between the hosts' disks.
func (l *Lab) copyFile(fromHost, from, toHost, to string) error {
	data, err := os.ReadFile(host.Disk(l.dir, fromHost, from))
	if err != nil {
		return err
	}
	target := host.Disk(l.dir, toHost, to)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	return os.WriteFile(target, data, 0o600)
}

func (l *Lab) startAgents(ctx context.Context, master topology.Host) error {
	for _, n := range l.info.Topology.With(topology.Node) {
		from := serverData + "/nodes/" + n.Name + ".kubeconfig"
		if err := l.copyFile(master.Name, from, n.Name, agentConfig); err != nil {
			return fmt.Errorf("copy credentials of %s: %w", n.Name, err)
		}
		if err := l.Run(ctx, n.Name, Agent, agentArgv(l.info.Topology, master, n)...); err != nil {
			return err
		}
	}
	return nil
}

// waitNodes waits until every node is Ready and has its subnet.
func (l *Lab) waitNodes(ctx context.Context, master topology.Host, p *progress) error {
	nodes := l.info.Topology.With(topology.Node)
	errs := make([]error, len(nodes))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			if errs[i] = l.waitNode(ctx, master, n); errs[i] != nil {
				cancel()
				return
			}
			subnet, err := l.Subnet(ctx, n.Name)
			if err != nil {
				errs[i] = err
				return
			}
			p.done("%s Ready with subnet %s", n.Name, subnet)
		})
	}
	all.Wait()
	for _, err := range errs { // the one that made the others stop is the one to show
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) waitNode(ctx context.Context, master, n topology.Host) error {
	what := "node " + n.Name + " to be Ready and hold a subnet"
	return l.wait(ctx, n.Name, Agent, what, func(ctx context.Context) error {
		if _, err := l.Subnet(ctx, n.Name); err != nil {
			return err
		}
		return l.nodeReady(ctx, master.Name, n.Name)
	})
}
