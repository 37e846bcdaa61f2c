package server

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	cliflag "k8s.io/component-base/cli/flag"
	cpoptions "k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// Options are weft-server's flags. Those of the API server are upstream's own, so they have kube-apiserver's names and
// meanings; the rest has kube-controller-manager's and etcd's names where those programs have the flag.
type Options struct {
	DataDir   string
	NodeNames []string

	ListenClientURLs []string // of the embedded etcd
	NoFsync          bool

	ServiceRange    string // --service-cluster-ip-range, one CIDR or two of different families
	ClusterCIDR     string // the pod network, same form
	AllocateCIDRs   bool
	NodeMaskV4      int
	NodeMaskV6      int
	NodeMonitor     time.Duration
	NodeGrace       time.Duration
	NodePorts       utilnet.PortRange
	AllowPrivileged bool
	Verbosity       int

	kube    *cpoptions.Options
	kubelet kubeletclient.KubeletClientConfig
	retired map[string]*string // what was given for a retired flag
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	o := &Options{
		DataDir:      "/var/lib/weft-server",
		ServiceRange: "10.254.0.0/16",
		NodeMaskV4:   24,
		NodeMaskV6:   64,
		NodeMonitor:  5 * time.Second,
		NodeGrace:    40 * time.Second,
		NodePorts:    kubeoptions.DefaultServiceNodePortRange,
		kube:         cpoptions.NewOptions(),
		kubelet: kubeletclient.KubeletClientConfig{
			Port:                  10250,
			PreferredAddressTypes: []string{"InternalIP", "ExternalIP", "Hostname"},
			HTTPTimeout:           5 * time.Second,
		},
		retired: map[string]*string{},
	}
	o.kube.SystemNamespaces = append(o.kube.SystemNamespaces, "kube-node-lease")
	o.kube.Authorization.Modes = []string{"Node", "RBAC"}
	o.kube.Authentication.ServiceAccounts.Issuers = []string{"https://kubernetes.default.svc.cluster.local"}
	// One process and one operator: request limits do, and spare the flowcontrol group, its objects and its CPU.
	o.kube.Features.EnablePriorityAndFairness = false
	o.kube.Metrics = nil // no flags for metrics of metrics
	return o
}

// shown are the flags --help lists; the others are upstream's and work the same, but would bury these.
var shown = []string{
	"data-dir", "node-names", "etcd-servers", "listen-client-urls", "unsafe-no-fsync", "service-cluster-ip-range", "cluster-cidr",
	"allocate-node-cidrs", "node-cidr-mask-size", "service-node-port-range", "secure-port", "bind-address", "advertise-address",
	"enable-admission-plugins", "disable-admission-plugins", "admission-control", "authorization-mode", "anonymous-auth",
	"tls-cert-file", "tls-private-key-file", "client-ca-file", "token-auth-file", "service-account-key-file",
	"service-account-signing-key-file", "allow-privileged", "kubelet-certificate-authority", "node-monitor-grace-period", "v",
	"help-all", "help",
}

// usage is upstream's help said shorter, or said of this server.
var usage = map[string]string{
	"secure-port":               "The HTTPS port.",
	"bind-address":              "The address to listen at; all of the host when 0.0.0.0 or ::.",
	"advertise-address":         "The address nodes reach this server at; the default route's when not given.",
	"etcd-servers":              "An etcd cluster to use (URLs, comma separated) instead of the embedded one, by one weft-server per --etcd-prefix.",
	"admission-control":         "Exactly these admission plugins, and those node identities rest on. The two flags below are the newer way.",
	"enable-admission-plugins":  "Admission plugins to have besides the default ones.",
	"disable-admission-plugins": "Admission plugins not to have.",
	"authorization-mode":        "Authorizers, in order.",
	"anonymous-auth":            "Let requests without credentials in as system:anonymous, who may read health and version.",
	"tls-cert-file":             "The serving certificate, with its chain; made when not given.",
	"tls-private-key-file":      "The key of --tls-cert-file.",
	"client-ca-file":            "Authorities whose client certificates are accepted, next to the server's own.",
	"token-auth-file":           "CSV of bearer tokens: token,user,uid,\"group,group\".",
	"service-account-key-file":  "Keys or certificates to verify service account tokens with; one with its private half also signs.",
}

// AddFlags registers every flag on fs.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.StringVar(&o.DataDir, "data-dir", o.DataDir, "Keys, kubeconfigs and the embedded etcd's data, kept over restarts.")
	fs.StringSliceVar(&o.NodeNames, "node-names", nil, "Nodes to write a kubeconfig for, DATA-DIR/nodes/NAME.kubeconfig.")
	fs.StringSliceVar(&o.ListenClientURLs, "listen-client-urls", []string{"http://127.0.0.1:2379"},
		"Where the embedded etcd answers clients. It asks nobody for a password: open it to a network you trust.")
	fs.BoolVar(&o.NoFsync, "unsafe-no-fsync", false,
		"The embedded etcd does not wait for its disk: for labs on slow disks. A power cut loses data, a crash does not.")
	fs.StringVar(&o.ServiceRange, "service-cluster-ip-range", o.ServiceRange, "CIDR of the services' virtual addresses, two for dual stack.")
	fs.StringVar(&o.ClusterCIDR, "cluster-cidr", "", "CIDR of the pod network, two for dual stack. Must not overlap the service range.")
	fs.BoolVar(&o.AllocateCIDRs, "allocate-node-cidrs", false, "Give every node a podCIDR out of --cluster-cidr.")
	fs.IntVar(&o.NodeMaskV4, "node-cidr-mask-size", o.NodeMaskV4, "Prefix length of a node's IPv4 podCIDR.")
	fs.IntVar(&o.NodeMaskV6, "node-cidr-mask-size-ipv6", o.NodeMaskV6, "Prefix length of a node's IPv6 podCIDR.")
	fs.DurationVar(&o.NodeMonitor, "node-monitor-period", o.NodeMonitor, "How often nodes' heartbeats are looked at.")
	fs.DurationVar(&o.NodeGrace, "node-monitor-grace-period", o.NodeGrace, "How long a node may be silent before it is not ready.")
	fs.Var(&o.NodePorts, "service-node-port-range", "Ports of services of type NodePort.")
	fs.BoolVar(&o.AllowPrivileged, "allow-privileged", false, "Allow privileged containers.")
	fs.IntVarP(&o.Verbosity, "v", "v", 0, "Log level: 0 errors only, 1 and more what the upstream parts say at that level.")
	fs.Bool("help-all", false, "List every flag, upstream's too.")
	o.addKubeletFlags(fs)
	o.addUpstreamFlags(fs)
	o.addRetiredFlags(fs)
	for name, words := range usage {
		fs.Lookup(name).Usage = words
	}
	list := map[string]bool{}
	for _, name := range shown {
		list[name] = true
	}
	fs.VisitAll(func(f *pflag.Flag) { f.Hidden = !list[f.Name] })
}

func (o *Options) addKubeletFlags(fs *pflag.FlagSet) {
	k := &o.kubelet
	fs.StringSliceVar(&k.PreferredAddressTypes, "kubelet-preferred-address-types", k.PreferredAddressTypes,
		"Which of a node's addresses to call.")
	fs.DurationVar(&k.HTTPTimeout, "kubelet-timeout", k.HTTPTimeout, "Timeout of calls to nodes.")
	fs.StringVar(&k.TLSClientConfig.CertFile, "kubelet-client-certificate", "", "Client certificate for calls to nodes; made when not given.")
	fs.StringVar(&k.TLSClientConfig.KeyFile, "kubelet-client-key", "", "Key of --kubelet-client-certificate.")
	fs.StringVar(&k.TLSClientConfig.CAFile, "kubelet-certificate-authority", "",
		"Authority of the nodes' serving certificates; without it they are not verified.")
}

func (o *Options) addUpstreamFlags(fs *pflag.FlagSet) {
	o.kube.GenericServerRunOptions.AddUniversalFlags(fs)
	o.kube.Etcd.AddFlags(fs)
	o.kube.SecureServing.AddFlags(fs)
	o.kube.Audit.AddFlags(fs)
	o.kube.Authentication.AddFlags(fs)
	o.kube.Authorization.AddFlags(fs)
	o.kube.APIEnablement.AddFlags(fs)
	o.kube.Admission.AddFlags(fs)
	fs.DurationVar(&o.kube.EventTTL, "event-ttl", o.kube.EventTTL, "How long events are kept.")
	fs.StringVar(&o.kube.ServiceAccountSigningKeyFile, "service-account-signing-key-file", "",
		"Key that signs service account tokens; made when not given.")
	fs.Lookup("admission-control").Deprecated = "" // we say it ourselves, with the plugins' names
}

// embedded reports whether the server brings its own etcd.
func (o *Options) embedded() bool { return len(o.kube.Etcd.StorageConfig.Transport.ServerList) == 0 }

// ranges are the parsed address ranges.
type ranges struct{ service, cluster []netip.Prefix }

func (o *Options) ranges() (ranges, error) {
	service, err := parseCIDRs("service-cluster-ip-range", o.ServiceRange)
	if err != nil {
		return ranges{}, err
	}
	if len(service) == 0 {
		return ranges{}, fmt.Errorf("--service-cluster-ip-range is empty: give the CIDR of the services' addresses, like 10.254.0.0/16")
	}
	cluster, err := parseCIDRs("cluster-cidr", o.ClusterCIDR)
	if err != nil {
		return ranges{}, err
	}
	for _, s := range service {
		if s.Bits() > s.Addr().BitLen()-3 {
			return ranges{}, fmt.Errorf("--service-cluster-ip-range: %s is too small: use a /%d or larger", s, s.Addr().BitLen()-3)
		}
		for _, c := range cluster {
			if s.Overlaps(c) {
				return ranges{}, fmt.Errorf("--service-cluster-ip-range %s overlaps --cluster-cidr %s: give services a range of their own", s, c)
			}
		}
	}
	if o.AllocateCIDRs && len(cluster) == 0 {
		return ranges{}, fmt.Errorf("--allocate-node-cidrs needs --cluster-cidr")
	}
	for _, c := range cluster {
		if size := o.nodeMask(c); o.AllocateCIDRs && (size < c.Bits() || size > c.Addr().BitLen()-2) {
			return ranges{}, fmt.Errorf("--node-cidr-mask-size: a node cannot have a /%d of --cluster-cidr %s", size, c)
		}
	}
	return ranges{service: service, cluster: cluster}, nil
}

func (o *Options) nodeMask(cluster netip.Prefix) int {
	if cluster.Addr().Is4() {
		return o.NodeMaskV4
	}
	return o.NodeMaskV6
}

func parseCIDRs(flag, value string) ([]netip.Prefix, error) {
	if value == "" {
		return nil, nil
	}
	var out []netip.Prefix
	for field := range strings.SplitSeq(value, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(field))
		if err != nil {
			return nil, fmt.Errorf("--%s: %q is not a CIDR like 10.254.0.0/16", flag, field)
		}
		if prefix != prefix.Masked() {
			return nil, fmt.Errorf("--%s: %s has bits set beyond the prefix: write %s", flag, prefix, prefix.Masked())
		}
		out = append(out, prefix)
	}
	if len(out) > 2 || len(out) == 2 && out[0].Addr().Is4() == out[1].Addr().Is4() {
		return nil, fmt.Errorf("--%s: %s: give one CIDR, or one of IPv4 and one of IPv6", flag, value)
	}
	return out, nil
}

// first returns the address the kubernetes Service takes: the range's first after the network's own.
func first(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// ipNet is the form upstream wants; a zero prefix gives a zero IPNet.
func ipNet(p netip.Prefix) net.IPNet {
	if !p.IsValid() {
		return net.IPNet{}
	}
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// second returns the other range of a dual-stack pair, or the zero prefix.
func second(p []netip.Prefix) netip.Prefix {
	if len(p) < 2 {
		return netip.Prefix{}
	}
	return p[1]
}
