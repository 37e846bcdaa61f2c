// Package api holds the cluster objects the planners work on: nodes, leases, services, endpoints and pods, as plain
// values. It knows nothing of where they come from (internal/store) and nothing of the kernel (internal/netstate).
//
// Floor 1, values: no I/O, no clock.
package api

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Node is one host of the cluster.
type Node struct {
	Name        string
	Addresses   []netip.Addr   // InternalIP addresses, the preferred one of each family first
	PodCIDRs    []netip.Prefix // node.spec.podCIDRs, at most one of each family
	Labels      map[string]string
	Annotations map[string]string
	Ready       bool
	Leaving     bool // being deleted, or about to be: load balancers should send it nothing new (KEP-3836)
}

// Zone is the node's topology.kubernetes.io/zone label, or "".
func (n Node) Zone() string { return n.Labels["topology.kubernetes.io/zone"] }

// Address returns the node's preferred address of the family, or the zero Addr.
func (n Node) Address(v6 bool) netip.Addr {
	for _, a := range n.Addresses {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// Lease is one host's share of the pod network and how to reach it, as flannel's lease value says it.
type Lease struct {
	Node        string       // the holder's node name where the store knows it, else ""
	Subnet      netip.Prefix // IPv4 pod subnet, zero when the network has none
	SubnetV6    netip.Prefix // IPv6 pod subnet, zero when the network has none
	PublicIP    netip.Addr   // where the overlay reaches the host over IPv4
	PublicIPv6  netip.Addr
	BackendType string // "vxlan", "host-gw", ...; "" as flannel's udp writes it
	VNI         uint32 // vxlan only
	VTEPMAC     string // vxlan only, lower case, colons
	VTEPMACv6   string // MAC of the IPv6 VTEP device
	WGKey       string // wireguard only: public key, base64; both devices of a host share it
	WGPort      uint16 // wireguard only: the holder's UDP port, 0 when an old writer left it out
	WGPortV6    uint16
	Also        string // further kinds by which the holder receives, as package lease writes them; "" none
	Expiry      time.Time
}

// Protocol is a transport protocol as Kubernetes spells it.
type Protocol string

// The transport protocols of a service port.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// ServicePortName identifies one port of one service.
type ServicePortName struct {
	Namespace string
	Name      string
	Port      string // the port's name, "" when the service has a single unnamed one
}

// String is "namespace/name:port", the text kube-proxy puts in rule comments; an unnamed port leaves the colon.
func (n ServicePortName) String() string { return n.Namespace + "/" + n.Name + ":" + n.Port }

// ServicePort is one port of a service with all the endpoints behind it.
type ServicePort struct {
	Name       ServicePortName
	Protocol   Protocol
	ClusterIPs []netip.Addr
	Port       uint16
	NodePort   uint16 // 0: none
	External   []netip.Addr
	LoadBalancer,
	SourceRanges []netip.Prefix
	// BalancerProxies says that the load balancer opens connections of its own: their source is not the client's.
	BalancerProxies                     bool
	AffinitySeconds                     int // sessionAffinity ClientIP timeout, 0: none
	ExternalLocal                       bool
	InternalLocal                       bool
	HealthCheckNodePort                 uint16
	Endpoints                           []Endpoint // sorted by Addr, no duplicates
	PublishNotReady, MasqueradeDisabled bool
	// Balance is how an endpoint is chosen. Weights is the text the endpoints' weights are made from, Refused what of the service's
	// annotations about these and of its externalIPs was no good and is not in force, "" for nothing.
	Balance          Balance
	Weights, Refused string
}

// Balance is a way to choose among the endpoints of a service.
type Balance string

// The ways. Mode userspace takes RoundRobin in turns, the others draw at random.
const (
	RoundRobin       Balance = ""
	Maglev           Balance = "maglev"            // consistent hashing of the client's address
	LeastConnections Balance = "least-connections" // mode userspace only
)

// Ready returns the addresses of the endpoints of one family that may get new connections, in order.
// When none is ready but some are terminating and still serving, those are returned (KEP-1669).
func (s ServicePort) Ready(v6 bool) []netip.AddrPort { return Addrs(s.Usable(v6)) }

// Usable is Ready with all that is known of the endpoints.
func (s ServicePort) Usable(v6 bool) []Endpoint {
	other := func(e Endpoint) bool { return !e.Ready || e.Addr.Addr().Is6() != v6 }
	if !slices.ContainsFunc(s.Endpoints, other) {
		return slices.Clip(s.Endpoints)
	}
	var ready, serving []Endpoint
	for _, e := range s.Endpoints {
		if e.Addr.Addr().Is6() != v6 {
			continue
		}
		if e.Ready {
			ready = append(ready, e)
		} else if e.Serving && e.Terminating {
			serving = append(serving, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}

// Addrs are the endpoints' addresses, nil for none.
func Addrs(list []Endpoint) []netip.AddrPort {
	if len(list) == 0 {
		return nil
	}
	out := make([]netip.AddrPort, len(list))
	for i := range list {
		out[i] = list[i].Addr
	}
	return out
}

// Endpoint is one address behind a service port.
type Endpoint struct {
	Addr        netip.AddrPort
	Node        string // node that runs it, "" when unknown
	Zone        string
	Ready       bool
	Serving     bool
	Terminating bool
	// ZoneHints and NodeHints are the zones and nodes whose clients the endpoint shall serve (EndpointSlice hints, KEP-2433, KEP-3015).
	ZoneHints, NodeHints Names
	// Weight is the endpoint's share of new connections against that of others, 1 to 100; 0 counts as 1.
	Weight uint8
}

// Names is a set of names as one comparable text: sorted, joined with commas. Names of zones and nodes have none.
type Names string

// NamesOf is the set of the names, without empty ones.
func NamesOf(names ...string) Names {
	sorted := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" || strings.Contains(n, ",") })
	slices.Sort(sorted)
	return Names(strings.Join(slices.Compact(sorted), ","))
}

// Has reports whether the name is in the set.
func (n Names) Has(name string) bool {
	for x := range strings.SplitSeq(string(n), ",") {
		if x == name && name != "" {
			return true
		}
	}
	return false
}

// Pod is a pod with a network attachment (host-network pods have none).
type Pod struct {
	Namespace, Name, UID string
	Node                 string
	IPs                  []netip.Addr
	HostNetwork          bool
	Labels               map[string]string
	Phase                string // "Pending", "Running", "Succeeded", "Failed"
}

// Snapshot is everything a planner may look at, at one moment.
type Snapshot struct {
	Nodes    []Node
	Leases   []Lease
	Services []ServicePort
	Pods     []Pod
	// Problems says, one line each, what of services is not done as they want it and why, whatever the proxy mode.
	Problems []string
	// Changes tells how Services differ from the snapshot before, where whoever made this one knows; nil: compare.
	Changes *ServiceChanges
}

// ServiceChanges is the way from one list of service ports to the next. A reader that missed a version has to look at the whole list.
type ServiceChanges struct {
	From, To    uint64        // versions of the list, equal when nothing changed; 0 is the empty list
	Gone, Fresh []ServicePort // no longer there; new or different
	// Triggered is when the pods or services changed that the changes of endpoints are about, as their EndpointSlices say.
	Triggered []time.Time
}
