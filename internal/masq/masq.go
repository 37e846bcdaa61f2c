// Package masq plans which packets of pods leave a node with the node's address as their source, and that the node forwards packets
// of the pod network at all. It renders the plan for iptables (xt.go) and for nftables.
//
// Floor 2, planners: pure.
package masq

import "net/netip"

// Mode says what is masqueraded.
type Mode string

// The modes.
const (
	// None masquerades nothing: everything sees the pods' own addresses, and must have a route back to them.
	None Mode = "none"
	// Outside masquerades what leaves the pod network; inside it pods see each other's addresses. It is what flannel does with --ip-masq.
	Outside Mode = "outside"
	// Pods masquerades everything that leaves the node's bridge, packets to pods on other nodes too, as docker does with --ip-masq:
	// a pod elsewhere sees the address of the device the packet left by (flannel.1) instead of the pod's.
	Pods Mode = "pods"
)

// Config is what to masquerade on a node. Prefixes of a family the network lacks are zero.
type Config struct {
	Mode Mode
	// Network and NetworkV6 are the pod networks of the cluster, Subnet and SubnetV6 this node's part.
	Network, NetworkV6 netip.Prefix
	Subnet, SubnetV6   netip.Prefix
	// Underlay are networks of hosts that lie within Network, as 172.17.0.0/16 in the walkthrough's 172.16.0.0/12: their addresses are
	// not pods', so packets of pods to them are masqueraded, and packets of hosts are left alone.
	Underlay []netip.Prefix
	// NonMasquerade are networks beyond the pod network that see the pods' own addresses (ip-masq-agent's nonMasqueradeCIDRs).
	NonMasquerade []netip.Prefix
	// Bridge is the pods' bridge; "" when pods are routed.
	Bridge string
	// Forward accepts forwarded packets of the pod network, for hosts whose FORWARD chain has the policy DROP.
	Forward bool
	// KeepPorts lets masqueraded connections keep their source ports where possible, instead of random ones
	// (flannel's --ip-masq-fully-random-disable).
	KeepPorts bool
	// MarkBits are the bits of the packet mark by which a service proxy, ours or a kube-proxy, says that it masquerades the packet itself;
	// 0 is Mark. No other bit is looked at, and none is changed.
	MarkBits uint32
}

// Mark is set in packets that the service proxy masquerades itself, as kube-proxy does.
const Mark = 0x4000

func (c Config) mark() uint32 {
	if c.MarkBits == 0 {
		return Mark
	}
	return c.MarkBits
}

// multicast is never masqueraded: its receivers answer to the sender.
var (
	multicast   = netip.MustParsePrefix("224.0.0.0/4")
	multicastV6 = netip.MustParsePrefix("ff00::/8")
)

// family is the part of a Config that concerns one family.
type family struct {
	Config
	network, subnet, multicast netip.Prefix
	underlay, open             []netip.Prefix
}

// of returns the part of one family; ok is false when the network lacks it.
func (c Config) of(v6 bool) (f family, ok bool) {
	f = family{Config: c, network: c.Network, subnet: c.Subnet, multicast: multicast}
	if v6 {
		f.network, f.subnet, f.multicast = c.NetworkV6, c.SubnetV6, multicastV6
	}
	if !f.network.IsValid() || !f.subnet.IsValid() {
		return f, false
	}
	for _, u := range c.Underlay {
		if u.Overlaps(f.network) && u.Bits() >= f.network.Bits() && !u.Overlaps(f.subnet) {
			f.underlay = append(f.underlay, u)
		}
	}
	for _, n := range c.NonMasquerade {
		if n.Addr().Is6() == v6 {
			f.open = append(f.open, n)
		}
	}
	return f, true
}
