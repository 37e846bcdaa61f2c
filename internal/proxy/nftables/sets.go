package nftables

import (
	"weft/internal/maglev"
	"weft/internal/nft"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	v6           bool
	suffix       string
	saddr, daddr nft.Field
	hash         nft.Field // of saddr
	addr         nft.Type
}

var families = [...]family{
	{suffix: "4", saddr: nft.IPSaddr, daddr: nft.IPDaddr, hash: nft.HashSaddr, addr: nft.IPv4Addr},
	{v6: true, suffix: "6", saddr: nft.IP6Saddr, daddr: nft.IP6Daddr, hash: nft.HashSaddr6, addr: nft.IPv6Addr},
}

// name is the family's set of that name.
func (f family) name(set string) string { return set + f.suffix }

func exprs(fields ...nft.Field) []nft.Expr {
	out := make([]nft.Expr, len(fields))
	for i, f := range fields {
		out[i].Field = f
	}
	return out
}

// vipKey is the key of the maps by address.
func (f family) vipKey() []nft.Expr { return exprs(f.daddr, nft.L4Proto, nft.ThDport) }

// portKey is the key of the maps by port.
func portKey() []nft.Expr { return exprs(nft.L4Proto, nft.ThDport) }

// recentKey is the key of what the session affinity remembers.
func (f family) recentKey() []nft.Expr { return exprs(f.saddr, f.daddr, nft.L4Proto, nft.ThDport) }

func (f family) vipTypes(more ...nft.Type) []nft.Type {
	return append([]nft.Type{f.addr, nft.InetProto, nft.InetService}, more...)
}

func portTypes(more ...nft.Type) []nft.Type {
	return append([]nft.Type{nft.InetProto, nft.InetService}, more...)
}

func (f family) endpointTypes() []nft.Type { return []nft.Type{f.addr, nft.InetService} }

// vips leads from the addresses of services to their chains.
func (f family) vips() nft.Set {
	return nft.Set{Name: f.name("vips"), Key: f.vipTypes(), Verdicts: true}
}

// ports leads from NodePorts to their chains.
func (f family) ports() nft.Set {
	return nft.Set{Name: f.name("ports"), Key: portTypes(), Verdicts: true}
}

// addresses is a set of addresses with protocol and port: "rejected" and "dropped" say what becomes of packets without endpoint. They are
// sets, not a map of verdicts, because a change of a verdict costs the kernel a look at all of them.
func (f family) addresses(set string) nft.Set {
	return nft.Set{Name: f.name(set), Key: f.vipTypes()}
}

// portsOnly is the same for NodePorts: "rejected-ports", "dropped-ports".
func (f family) portsOnly(set string) nft.Set {
	return nft.Set{Name: f.name(set + "-ports"), Key: portTypes()}
}

// hairpin holds the node's own endpoints, twice: source and destination of a connection of a pod to itself.
func (f family) hairpin() nft.Set {
	return nft.Set{Name: f.name("hairpin"), Key: []nft.Type{f.addr, f.addr}}
}

// clusterIPs holds the cluster addresses of all services.
func (f family) clusterIPs() nft.Set {
	return nft.Set{Name: f.name("cluster-ips"), Key: []nft.Type{f.addr}}
}

// nodePortSet holds the NodePorts of all services.
func (f family) nodePortSet() nft.Set {
	return nft.Set{Name: f.name("nodeports"), Key: portTypes()}
}

// recentSize bounds the clients that session affinity remembers; a client that no longer fits is served without affinity.
const recentSize = 262144

// recent is what session affinity remembers: the endpoint of a client. The kernel fills it. Clients from outside that only the node's own
// endpoints may serve have one of their own: an endpoint they had under another traffic policy is none of these.
func (l list) recent() nft.Set {
	l.port = false
	return nft.Set{
		Name: l.which("recent"), Key: []nft.Type{l.addr, l.addr, nft.InetProto, nft.InetService}, Data: l.endpointTypes(),
		Dynamic: true, Timeout: defaultAffinity, Size: recentSize,
	}
}

// defaultAffinity is Kubernetes' default session affinity timeout in seconds.
const defaultAffinity = 10800

// list is one of the lists of endpoints a service can have.
type list struct {
	family
	port  bool // by NodePort, else by address
	local bool // the node's own endpoints, for packets from outside
}

// which is the list's name: "eps4", "eps-local4", "port-eps4", "port-eps-local4".
func (l list) which(kind string) string {
	if l.port {
		kind = "port-" + kind
	}
	if l.local {
		kind += "-local"
	}
	return l.name(kind)
}

// key is the key of the list's maps with a random slot below n.
func (l list) key(n int) []nft.Expr { return l.slot(nft.Expr{Field: nft.Random, Mod: uint32(n)}) }

// hashKey is the key with the slot of the client's address in a table of size n.
func (l list) hashKey(n int) []nft.Expr {
	return l.slot(nft.Expr{Field: l.hash, Mod: uint32(n), Seed: maglev.Seed})
}

func (l list) slot(e nft.Expr) []nft.Expr {
	if l.port {
		return append(portKey(), e)
	}
	return append(l.vipKey(), e)
}

func (l list) types() []nft.Type {
	if l.port {
		return portTypes(nft.NumGen)
	}
	return l.vipTypes(nft.NumGen)
}

// endpoints is the map that holds the list.
func (l list) endpoints() nft.Set {
	return nft.Set{Name: l.which("eps"), Key: l.types(), Data: l.endpointTypes()}
}

// picks is the map that leads to the chains of endpoints, for session affinity.
func (l list) picks() nft.Set {
	return nft.Set{Name: l.which("picks"), Key: l.types(), Verdicts: true}
}
