// Package contract is the source-address contract as data: who sends, to whom, and whose address the receiver sees under each policy.
//
// docs/masquerade.md is written from it, and test/sources proves it: every row is explained over the planned rules and sent for real, in
// both families, over TCP and UDP, with every backend, both attachments, and both renderings of the rules.
//
// Floor 2, planners: pure.
package contract

import "weft/internal/masq"

// Sender is who sends a row's packets.
type Sender string

// The senders.
const (
	Pod       Sender = "pod"           // on the node the contract is about
	PodAway   Sender = "pod elsewhere" // on another node
	Node      Sender = "node"          // a process of the node
	Outside   Sender = "outside"       // a host outside the cluster
	Behind    Sender = "behind"        // a host outside the cluster whose router the node is
	PodOnLink Sender = "pod, l2"       // a pod of a network with backend l2
)

// Destination is where a row's packets are sent to.
type Destination string

// The destinations. Those of services say where the endpoint is.
const (
	ToPod         Destination = "pod here"
	ToPodAway     Destination = "pod elsewhere"
	ToNode        Destination = "the node's address"
	ToGateway     Destination = "the node's address towards its pods"
	ToNodeAway    Destination = "other node's address"
	ToOutside     Destination = "outside"
	ToOpen        Destination = "a --non-masquerade-cidr"
	ToMetadata    Destination = "169.254.169.254 outside"
	ToLinkLocal   Destination = "the node's fe80:: address"
	ToMulticast   Destination = "multicast, on the link"
	ToService     Destination = "service, endpoint here"
	ToServiceAway Destination = "service, endpoint elsewhere"
	ToServiceSelf Destination = "service, the sender is the endpoint"
	ToNodePort    Destination = "NodePort, endpoint here"
	ToPortAway    Destination = "NodePort, endpoint elsewhere"
	ToPortLocal   Destination = "NodePort, traffic policy Local"
)

// Source is whose address the receiver sees.
type Source string

// The sources. The node's addresses differ by the device the packet leaves by.
const (
	Own      Source = "its own"
	Underlay Source = "node"          // the node's address on the underlay
	Overlay  Source = "node, overlay" // the node's address towards pods elsewhere (Address)
	Gateway  Source = "node, .1"      // the node's address towards its own pods
	Lost     Source = "–"             // the packet does not arrive
	Perhaps  Source = "its own, or –" // it does not arrive where an edge check refuses sources that are not the tunnel's sender's
)

// Modes are the policies in the order of Row.Seen.
var Modes = [3]masq.Mode{masq.None, masq.Outside, masq.Pods}

// Families and protocols a row may be limited to, as bits.
const (
	V4 = 1 << iota
	V6
	UDP // multicast knows no connections
)

// Row is one line of the contract.
type Row struct {
	From Sender
	To   Destination
	Seen [3]Source // by mode: none, outside, pods
	Why  string

	// Only limits the row to a family or to UDP; 0: both families, TCP and UDP.
	Only int
	// Attach and Backend limit the row to one attachment or backend; "": all. Backend "l2" is never part of all: its nodes are no part of
	// the pods' network.
	Attach, Backend string
	// Deaf are the modes in which an answer takes another way back than the packet came, which an edge check or connection tracking may
	// refuse: only datagrams are sent, which need no answer.
	Deaf []masq.Mode
}

// Backends are those that route packets between nodes, with the node's address towards pods elsewhere: "" stands for its address on the
// underlay, else it is the first address (.0) of the node's subnet, on the device.
var Backends = []struct{ Name, Device, DeviceV6 string }{
	{"vxlan", "flannel.1", "flannel-v6.1"},
	{"host-gw", "", ""},
	{"udp", "flannel0", "flannel0"},
	{"wireguard", "flannel-wg", "flannel-wg-v6"},
}

func always(s Source) [3]Source { return [3]Source{s, s, s} }

// outward are the sources of what pods send out of the pod network.
var (
	outward = [3]Source{Own, Underlay, Underlay}
	between = [3]Source{Own, Own, Overlay}
)

// Rows is the contract.
var Rows = []Row{
	{From: Pod, To: ToPod, Seen: always(Own), Why: "nothing leaves the node"},
	{From: Pod, To: ToPodAway, Seen: between, Why: "inside the pod network"},
	{From: PodAway, To: ToPod, Seen: between, Why: "the same, seen from the other end; the sender's node decides"},
	{From: Pod, To: ToNode, Seen: always(Own), Why: "not forwarded, so not masqueraded"},
	{From: Pod, To: ToGateway, Seen: always(Own), Why: "not forwarded"},
	{From: Pod, To: ToLinkLocal, Seen: always(Own), Only: V6, Attach: "bridge", Why: "never leaves the link; its fe80:: address where it has one"},
	{From: Pod, To: ToNodeAway, Seen: outward, Deaf: []masq.Mode{masq.None}, Why: "nodes are not pods"},
	{From: Pod, To: ToOutside, Seen: outward, Why: "outside has no route to pods"},
	{From: Pod, To: ToOpen, Seen: always(Own), Why: "it has a route to pods: the flag says so"},
	{From: Pod, To: ToMetadata, Seen: outward, Only: V4, Why: "the address is link-local, who answers is outside"},
	{From: Pod, To: ToMulticast, Seen: always(Own), Only: UDP, Attach: "bridge", Why: "receivers answer to the sender"},
	{From: Pod, To: ToService, Seen: always(Own), Why: "as to the pod behind it"},
	{From: Pod, To: ToServiceAway, Seen: between, Why: "as to the pod behind it"},
	{From: Pod, To: ToServiceSelf, Seen: always(Gateway), Why: "from its own address it would not take the answer"},
	{From: Pod, To: ToPortAway, Seen: always(Overlay), Why: "whoever uses a NodePort gets the node's address"},
	{From: PodAway, To: ToNodePort, Seen: always(Gateway), Deaf: []masq.Mode{masq.None}, Why: "whoever uses a NodePort gets the node's address"},
	{From: Node, To: ToPod, Seen: always(Gateway), Why: "the kernel's choice"},
	{From: Node, To: ToPodAway, Seen: always(Overlay), Why: "the kernel's choice"},
	{From: Node, To: ToNodeAway, Seen: always(Underlay), Why: "the kernel's choice"},
	{From: Node, To: ToOutside, Seen: always(Underlay), Why: "the kernel's choice"},
	{From: Node, To: ToOpen, Seen: always(Underlay), Why: "the kernel's choice"},
	{From: Node, To: ToMulticast, Seen: always(Underlay), Only: UDP, Why: "the kernel's choice"},
	{From: Node, To: ToService, Seen: always(Gateway), Why: "the address of the device towards the endpoint"},
	{From: Node, To: ToServiceAway, Seen: always(Overlay), Why: "the address of the device towards the endpoint"},
	{From: Outside, To: ToPod, Seen: always(Own), Why: "with a route to the pod's node; the pod may know its client"},
	{From: Outside, To: ToService, Seen: always(Gateway), Why: "the answer must come back through this node"},
	{From: Outside, To: ToServiceAway, Seen: always(Overlay), Why: "the answer must come back through this node"},
	{From: Outside, To: ToNodePort, Seen: always(Gateway), Why: "the answer must come back through this node"},
	{From: Outside, To: ToPortAway, Seen: always(Overlay), Why: "the answer must come back through this node"},
	{From: Outside, To: ToPortLocal, Seen: always(Own), Why: "externalTrafficPolicy Local keeps the client"},
	{From: Behind, To: ToPodAway, Seen: [3]Source{Lost, Overlay, Lost}, Backend: "udp", Why: "a tunnel takes no source that is not the sender's"},
	{From: Behind, To: ToPodAway, Seen: [3]Source{Lost, Overlay, Lost}, Backend: "wireguard", Why: "a tunnel takes no source that is not the sender's"},
	{From: Behind, To: ToPodAway, Seen: [3]Source{Perhaps, Overlay, Perhaps}, Backend: "vxlan", Why: "the other node has no route to the client"},
	{From: Behind, To: ToPodAway, Seen: [3]Source{Own, Overlay, Own}, Backend: "host-gw", Why: "the other node has no route to the client"},
	{From: Behind, To: ToOutside, Seen: always(Own), Why: "not of the pod network: none of ours"},
	{From: PodOnLink, To: ToPod, Seen: always(Own), Backend: "l2", Why: "frames are switched; no host takes part"},
	{From: PodOnLink, To: ToPodAway, Seen: always(Own), Backend: "l2", Why: "frames are switched; no host takes part"},
}

// For reports whether the row is about the attachment and the backend.
func (r Row) For(attach, backend string) bool {
	if r.Attach != "" && r.Attach != attach {
		return false
	}
	return r.Backend == backend || r.Backend == "" && backend != "l2"
}
