// Package settings is what the agent is told: its flags, the configuration file that is followed, and "weft settings", which shows both.
//
// Floor 4, programs.
package settings

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"weft/internal/agent/paths"
	"weft/internal/agent/rules"
	"weft/internal/lease"
)

// Config is what the agent is told by its flags.
type Config struct {
	NodeName   string
	Kubeconfig string

	EtcdEndpoints                     []string
	EtcdPrefix                        string
	EtcdCA, EtcdCert, EtcdKey         string
	EtcdUsername, EtcdPassword        string
	KubeSubnetManager                 bool
	NetConfigPath                     string
	AnnotationPrefix                  string // as lease.ParseAnnotationPrefix returns it, once it was validated
	SetNetworkUnavailable             bool
	Subnet                            string
	Underlay                          Underlay
	MTUProbe                          time.Duration
	SubnetFile                        string
	IPMasq, MasqueradePods, EdgeCheck bool
	Masquerade                        Masquerade
	Services                          Services
	Attach, Bridge                    string
	ProxyMode, PodRuntime             string
	ClusterCIDR, ServiceRange         string
	RunDir, StateDir                  string
	KubeletPort                       int
	HealthzBind, MetricsBind          string
	Version                           string
	File                              string // the configuration file
	Verbose                           int
	given                             map[string][]string // flags of the command line
	fileData                          []byte              // of File, as it was at the start
	level                             *slog.LevelVar      // of the log; nil: it is not ours to set
	subnet, clusterCIDR, serviceRange netip.Prefix
}

// Flags binds the configuration to a flag set with its defaults.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.File, "config", "", "YAML file with settings, keys are the names of these flags; a flag given here counts more. Followed while the agent runs")
	f.CountVarP(&c.Verbose, "verbose", "v", "log every op")
	host, _ := os.Hostname() // an empty name is refused by Validate
	f.StringVar(&c.NodeName, "node-name", host, "name of this node in the Kubernetes API")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "/etc/weft/kubeconfig", "credentials for the Kubernetes API; empty: no API, overlay only")
	f.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"}, "etcd that holds the leases")
	f.StringVar(&c.EtcdPrefix, "etcd-prefix", "/coreos.com/network", "etcd prefix of the network's keys")
	f.StringVar(&c.EtcdCA, "etcd-cafile", "", "CA that signed etcd's certificate")
	f.StringVar(&c.EtcdCert, "etcd-certfile", "", "client certificate for etcd")
	f.StringVar(&c.EtcdKey, "etcd-keyfile", "", "key of the client certificate")
	f.StringVar(&c.EtcdUsername, "etcd-username", "", "user name for etcd")
	f.StringVar(&c.EtcdPassword, "etcd-password", "", "password for etcd")
	f.BoolVar(&c.KubeSubnetManager, "kube-subnet-mgr", false, "take the subnet from node.spec.podCIDR and publish flannel's annotations instead of using etcd")
	f.StringVar(&c.NetConfigPath, "net-config-path", "/etc/kube-flannel/net-conf.json", "network configuration with --kube-subnet-mgr")
	f.StringVar(&c.AnnotationPrefix, "kube-annotation-prefix", strings.TrimSuffix(lease.AnnotationPrefix, "/"), "what the keys of the nodes' annotations begin with, with --kube-subnet-mgr; the same on all nodes")
	f.BoolVar(&c.SetNetworkUnavailable, "set-node-network-unavailable", true, "with --kube-subnet-mgr, set the node's condition NetworkUnavailable to False once its network stands")
	f.StringVar(&c.Subnet, "subnet", "", "subnet to ask for, for example 172.16.28.0/24; empty: the one held before, else a free one")
	c.Underlay.flags(f)
	f.DurationVar(&c.MTUProbe, "mtu-probe", 30*time.Second, "how often the MTU of the path to each other node is confirmed; 0: never, the interface's MTU is believed in")
	f.StringVar(&c.SubnetFile, "subnet-file", "/run/flannel/subnet.env", "where the subnet is written for other programs")
	f.BoolVar(&c.IPMasq, "ip-masq", true, "masquerade what pods send outside the pod network")
	f.BoolVar(&c.MasqueradePods, "masquerade-pods", false, "masquerade all that leaves the node's bridge, traffic between pods too (docker's --ip-masq=true): peers then see the node's address")
	c.Masquerade.bind(f)
	c.Services.bind(f)
	f.BoolVar(&c.EdgeCheck, "edge-check", true, "take overlay packets only from live peers, and only with an inner source inside the sender's subnet")
	f.StringVar(&c.Attach, "attach", "routed", "how pods are joined to the node: routed or bridge")
	f.StringVar(&c.Bridge, "bridge", "cni0", "name of the bridge with --attach=bridge")
	f.StringVar(&c.ProxyMode, "proxy-mode", "nftables", "how services are programmed: nftables, iptables or userspace; none: not at all, a kube-proxy does")
	f.StringVar(&c.PodRuntime, "pod-runtime", "process", "who runs the node's pods: process (this agent, as processes on the host's files) or none")
	f.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "pod network, for rules that tell pods from the rest; empty: the network configuration's")
	f.StringVar(&c.ServiceRange, "service-cluster-ip-range", "10.254.0.0/16", "range of the services' virtual addresses")
	f.StringVar(&c.RunDir, "run-dir", "/run/weft", "directory for sockets and what a reboot may forget")
	f.StringVar(&c.StateDir, "state-dir", "/var/lib/weft", "directory for what must survive a reboot")
	f.IntVar(&c.KubeletPort, "kubelet-port", 10250, "port for kubectl logs and exec; 0: off")
	f.StringVar(&c.HealthzBind, "healthz-bind", "0.0.0.0:10256", "address for /healthz, which load balancers ask, /livez and /readyz; empty: off")
	f.StringVar(&c.MetricsBind, "metrics-bind", "127.0.0.1:10249", "address for /metrics and /proxyMode, may be that of --healthz-bind; empty: off")
}

// Validate checks every field; the error names the flag, its value and what would be right.
func (c *Config) Validate() error {
	if c.NodeName == "" {
		return fmt.Errorf("--node-name is empty and the host has no name: give the node's name")
	}
	if err := oneOf("--attach", c.Attach, "routed", "bridge"); err != nil {
		return err
	}
	if err := rules.CheckMode(c.ProxyMode); err != nil {
		return err
	}
	if err := oneOf("--pod-runtime", c.PodRuntime, "process", "none"); err != nil {
		return err
	}
	if c.Kubeconfig == "" && c.KubeSubnetManager {
		return fmt.Errorf("--kube-subnet-mgr needs --kubeconfig")
	}
	if !c.KubeSubnetManager && len(c.EtcdEndpoints) == 0 {
		return fmt.Errorf("--etcd-endpoints is empty: name an etcd, or use --kube-subnet-mgr")
	}
	prefix, err := lease.ParseAnnotationPrefix(c.AnnotationPrefix)
	if err != nil {
		return fmt.Errorf("--kube-annotation-prefix: %w", err)
	}
	c.AnnotationPrefix = prefix
	if len(c.Bridge) > 15 || strings.ContainsAny(c.Bridge, "/ ") || c.Bridge == "" {
		return fmt.Errorf("--bridge=%s: an interface name has 1 to 15 characters, no slash, no space", c.Bridge)
	}
	if err := cmp.Or(c.Masquerade.validate(c.IPMasq || c.MasqueradePods), c.Services.validate(), paths.CheckProbe(c.MTUProbe)); err != nil {
		return err
	}
	return c.parseAddresses()
}

func (c *Config) parseAddresses() error {
	for _, x := range []struct {
		flag, value string
		to          *netip.Prefix
	}{{"--subnet", c.Subnet, &c.subnet}, {"--cluster-cidr", c.ClusterCIDR, &c.clusterCIDR}, {"--service-cluster-ip-range", c.ServiceRange, &c.serviceRange}} {
		if x.value == "" {
			continue
		}
		p, err := netip.ParsePrefix(x.value)
		if err != nil || p != p.Masked() {
			return fmt.Errorf("%s=%s: want a network like 172.16.28.0/24, without host bits", x.flag, x.value)
		}
		*x.to = p
	}
	if err := c.Underlay.parse(); err != nil {
		return err
	}
	if c.clusterCIDR.IsValid() && c.serviceRange.IsValid() && c.clusterCIDR.Overlaps(c.serviceRange) {
		return fmt.Errorf("--service-cluster-ip-range=%s overlaps --cluster-cidr=%s: choose ranges that do not", c.serviceRange, c.clusterCIDR)
	}
	return nil
}

func oneOf(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s=%s: want %s", flag, value, strings.Join(allowed, " or "))
}

// New is that of a program of the version, with a log whose level the configuration sets.
func New(version string) Config { return Config{Version: version, level: new(slog.LevelVar)} }

// LogLevel is the level of the log, as the configuration in force sets it.
func (c *Config) LogLevel() slog.Leveler { return c.level }

// CommandLine notes which flags the command line gives: they count more than the file.
func (c *Config) CommandLine(f *pflag.FlagSet) { c.given = givenFlags(f) }

// AskedSubnet is --subnet, the zero Prefix for none.
func (c *Config) AskedSubnet() netip.Prefix { return c.subnet }

// ServiceCIDR is the range of the services' virtual addresses.
func (c *Config) ServiceCIDR() netip.Prefix { return c.serviceRange }
