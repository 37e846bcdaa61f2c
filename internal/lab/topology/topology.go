// Package topology says what a lab is made of: its hosts, the underlay that joins them, and how the cluster on them is set up.
// It reads and checks the YAML of "weft lab up -f".
//
// Floor 4, programs; itself without I/O.
package topology

import (
	"encoding/json"
	"net/netip"
	"slices"
)

// Topology is a whole lab. The zero value of a field means its default; Parse and Default return topologies with every field set.
type Topology struct {
	// Nodes makes that many node hosts, kube-node1 and so on, beside one kube-master, when Hosts is empty. 1 to 64.
	Nodes    int      `yaml:"nodes,omitempty" json:"nodes,omitempty"`
	Underlay Underlay `yaml:"underlay" json:"underlay"`
	Hosts    []Host   `yaml:"hosts" json:"hosts"`
	Cluster  Cluster  `yaml:"cluster" json:"cluster"`
}

// Underlay is the network that joins the hosts: one Ethernet segment, a bridge outside the hosts.
type Underlay struct {
	Subnet  netip.Prefix `yaml:"subnet" json:"subnet"`   // IPv4, /8 to /29
	Gateway netip.Addr   `yaml:"gateway" json:"gateway"` // the bridge's own address; it routes nowhere
	MTU     int          `yaml:"mtu" json:"mtu"`         // bytes, 576 to 65521
}

// Host is one machine of the lab.
type Host struct {
	Name    string       `yaml:"name" json:"name"`       // a DNS label
	Address netip.Addr   `yaml:"address" json:"address"` // in the underlay's subnet
	Role    Role         `yaml:"role" json:"role"`
	Subnet  netip.Prefix `yaml:"subnet" json:"subnet,omitzero"` // pod subnet a node asks for; zero: any
}

// Role is what runs on a host.
type Role string

// Roles of a host.
const (
	Master Role = "master" // weft-server
	Node   Role = "node"   // weft agent
	Plain  Role = "plain"  // nothing
)

// Cluster is how the programs are set up.
type Cluster struct {
	Network        netip.Prefix `yaml:"network" json:"network"`               // pod network, shared out in subnets
	SubnetLen      int          `yaml:"subnetLen" json:"subnetLen"`           // prefix length of a node's share
	ServiceRange   netip.Prefix `yaml:"serviceRange" json:"serviceRange"`     // service addresses
	Backend        Backend      `yaml:"backend" json:"backend"`               // how pod packets cross the underlay
	ProxyMode      string       `yaml:"proxyMode" json:"proxyMode"`           // userspace, nftables, iptables
	Attach         string       `yaml:"attach" json:"attach"`                 // routed, bridge
	Bridge         string       `yaml:"bridge" json:"bridge"`                 // its name with attach: bridge
	MasqueradePods bool         `yaml:"masqueradePods" json:"masqueradePods"` // the article's docker rule: pods are hidden from pods
	LeaseStore     string       `yaml:"leaseStore" json:"leaseStore"`         // etcd, kube
	SecurePort     int          `yaml:"securePort" json:"securePort"`         // of the API
	// ServerFlags and AgentFlags are added to the programs' own flags or replace them, as --flag=value.
	ServerFlags []string `yaml:"serverFlags,omitempty" json:"serverFlags,omitempty"`
	AgentFlags  []string `yaml:"agentFlags,omitempty" json:"agentFlags,omitempty"`
}

// Backend is the backend part of net-conf.json.
type Backend struct {
	Type          string `yaml:"type" json:"Type"`
	VNI           int    `yaml:"vni,omitempty" json:"VNI,omitempty"`   // vxlan, 1 to 16777215; 0: the backend's default
	Port          int    `yaml:"port,omitempty" json:"Port,omitempty"` // UDP; 0: the backend's default
	DirectRouting bool   `yaml:"directRouting,omitempty" json:"DirectRouting,omitempty"`
}

// Default is the walkthrough's three hosts with weft's own defaults: nftables services and routed pods.
func Default() Topology {
	t := Topology{
		Hosts: []Host{
			{Name: "kube-master", Address: addr("172.17.42.30"), Role: Master},
			{Name: "kube-node1", Address: addr("172.17.42.31"), Role: Node, Subnet: prefix("172.16.28.0/24")},
			{Name: "kube-node2", Address: addr("172.17.42.32"), Role: Node, Subnet: prefix("172.16.78.0/24")},
		},
	}
	t.setDefaults()
	return t
}

// Walkthrough is the article's cluster as it stood: its API server's flags, userspace services, pods on a bridge named docker0.
func Walkthrough() Topology {
	t := Default()
	t.Cluster.ProxyMode, t.Cluster.Attach, t.Cluster.Bridge = "userspace", "bridge", "docker0"
	t.Cluster.ServerFlags = slices.Clone(articleFlags)
	return t
}

// HostsOnly is n hosts without programs, h1 172.17.42.31 and so on, for tests of other packages. n is 1 to 64.
func HostsOnly(n int) Topology {
	var t Topology
	t.setDefaults()
	t.Hosts = nil
	at := addr("172.17.42.31")
	for i := range n {
		t.Hosts = append(t.Hosts, Host{Name: "h" + itoa(i+1), Address: at, Role: Plain})
		at = at.Next()
	}
	return t
}

// Host returns the host of that name.
func (t Topology) Host(name string) (Host, bool) {
	i := slices.IndexFunc(t.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Host{}, false
	}
	return t.Hosts[i], true
}

// With returns the hosts of a role, in order.
func (t Topology) With(r Role) []Host {
	var hosts []Host
	for _, h := range t.Hosts {
		if h.Role == r {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// Names returns the hosts' names, in order.
func (t Topology) Names() []string {
	names := make([]string, len(t.Hosts))
	for i, h := range t.Hosts {
		names[i] = h.Name
	}
	return names
}

// NetConf is the network configuration as flannel's net-conf.json writes it.
func (t Topology) NetConf() ([]byte, error) {
	conf := struct {
		Network   netip.Prefix `json:"Network"`
		SubnetLen int          `json:"SubnetLen,omitempty"`
		Backend   Backend      `json:"Backend"`
	}{t.Cluster.Network, t.Cluster.SubnetLen, t.Cluster.Backend}
	if conf.SubnetLen == defaultSubnetLen {
		conf.SubnetLen = 0
	}
	return json.Marshal(conf)
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
