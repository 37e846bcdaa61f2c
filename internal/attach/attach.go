// Package attach plans how the pods of a node are joined to it: routed, each pod on a veth pair of its own with a /32 address, or
// bridge, as ports of one bridge that holds the subnet's first address; or l2, as ports of a bridge that the host is no part of.
//
// Floor 2, planners: pure functions, no I/O, no clock.
package attach

import "net/netip"

// Mode is the way pods are attached.
type Mode string

// The modes.
const (
	Routed Mode = "routed"
	Bridge Mode = "bridge"
	// L2 is a bridge without any address of the host's, for the overlay of the same name: all pods of the network are on one link.
	L2 Mode = "l2"
)

// Config is the node's side of every attachment.
type Config struct {
	Mode Mode
	// Bridge is the bridge's name in modes bridge and l2, "cni0" when empty.
	Bridge string
	// BridgeMAC is the bridge's Ethernet address where there is one that others know; empty: one made of the gateway's address.
	BridgeMAC string
	// Subnet and SubnetV6 are the node's pod subnets, zero where the network lacks the family. The first address of each is the
	// pods' gateway.
	Subnet, SubnetV6 netip.Prefix
	// Network and NetworkV6 are the whole pod network, for mode l2.
	Network, NetworkV6 netip.Prefix
	// MTU is the pods' MTU in bytes.
	MTU int
	// BridgeNetfilter says that the kernel has br_netfilter (/proc/sys/net/bridge exists), IPv6 that it has IPv6 (/proc/sys/net/ipv6).
	BridgeNetfilter, IPv6 bool
}

// Pod is a pod to attach.
type Pod struct {
	UID             string
	Namespace, Name string
	IPs             []netip.Addr // at most one of each family
	Netns           string       // path of the pod's network namespace
}

// PodInterface is the name of the interface in the pod.
const PodInterface = "eth0"
