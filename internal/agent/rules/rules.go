// Package rules plans the packet filter and the services of a node in every proxy mode: listeners, rules of iptables and table inet weft, the
// table so that what did not change costs nothing.
//
// Floor 4, programs.
package rules

import (
	"net/netip"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/api"
	"weft/internal/explain"
	"weft/internal/lease"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
	"weft/internal/proxy"
	iptproxy "weft/internal/proxy/iptables"
	"weft/internal/proxy/nftables"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

// Rules is the plan of a node's packet filter and service proxy: in mode userspace listeners and iptables rules, in mode iptables
// rules alone, in mode nftables the content of table inet weft. The part of the other mode is empty, so what it left behind goes.
type Rules struct {
	Listeners []netstate.Listener
	XT        xt.Ruleset
	Table     *nft.Table // nil: there shall be none
}

// Text is the rules as their programs print them.
func (r Rules) Text() string {
	if r.Table != nil {
		return r.XT.String() + r.Table.String()
	}
	return r.XT.String()
}

// Plan plans for the node with the facts, with the ports that its relay would choose.
func Plan(f facts.Facts, own api.Lease, snap api.Snapshot, g guard.Guard) Rules {
	r := PlanXT(f, own, snap, nil)
	r.Table = PlanTable(ContentOf(f, own, snap, g))
	return r
}

// PlanXT is what of the rules is not in table inet weft.
func PlanXT(f facts.Facts, own api.Lease, snap api.Snapshot, ports userspace.Ports) Rules {
	mode, n, m := ModeOf(f), Node(f, snap), Masquerade(f, own)
	if mode.listeners != nil && ports == nil {
		ports = preferredPorts(n, snap.Services, nil)
	}
	r := Rules{Listeners: listeners(mode, n, snap, ports)}
	if mode.rules != nil {
		r.XT = xt.Union(mode.rules(f, n, m, snap.Services, ports), masq.XT(m))
	}
	return r
}

// PlanTable is the whole of table inet weft, nil when there shall be none.
func PlanTable(c Content) *nft.Table {
	var p TablePlan
	p.Update(c)
	return p.Table()
}

// ContentOf is what the table of a node with the facts is planned from.
func ContentOf(f facts.Facts, own api.Lease, snap api.Snapshot, g guard.Guard) Content {
	mode := ModeOf(f)
	c := Content{Guard: g, inTable: mode.Table, served: mode.Services}
	if c.inTable {
		c.Masq = Masquerade(f, own)
	}
	if c.inTable && c.served {
		c.node, c.services, c.changes, c.facts = Node(f, snap), snap.Services, snap.Changes, f.Services
	}
	return c
}

// fragments is the content of table inet weft by owner: the guard's rules, and in mode nftables each service port, the
// services' common part, and the pods' masquerading.
func fragments(c Content) map[string]nft.Table {
	parts := make(map[string]nft.Table, len(c.services)+3)
	parts[ownerGuard] = edge.Rules(c.Guard.Config)
	if !c.inTable {
		return parts
	}
	parts[ownerPods] = masq.NFT(c.Masq)
	if !c.served {
		return parts
	}
	p := c.planner()
	parts[ownerBase] = p.Base(c.node)
	plans := p.For(c.node)
	for _, s := range c.services {
		parts[OwnerOf(s)] = plans.Plan(s)
	}
	return parts
}

// planner plans services in mode nftables, with what they share with the pods' masquerading.
func (c Content) planner() nftables.Planner {
	p := nftables.Planner{MasqueradeAll: c.facts.MasqueradeAll, Liberal: c.facts.Liberal}
	p.Mark, p.KeepPorts = c.Masq.MarkBits, c.Masq.KeepPorts
	return p
}

// iptablesPlanner plans services in mode iptables.
func iptablesPlanner(f facts.Facts, m masq.Config) iptproxy.Planner {
	return iptproxy.Planner{Mark: m.MarkBits, KeepPorts: m.KeepPorts, MasqueradeAll: f.Services.MasqueradeAll, Liberal: f.Services.Liberal}
}

// Node is the node as the proxies' planners see it.
func Node(f facts.Facts, snap api.Snapshot) proxy.Node {
	// Nobody reaches a service at a link-local address of the node: it has one in each family it is not part of, too.
	addrs := slices.DeleteFunc(slices.Clone(f.Addrs), netip.Addr.IsLinkLocalUnicast)
	n := proxy.Node{Name: f.Node, Addresses: addrs, ClusterCIDRs: f.PodNetworks()}
	var registered *api.Node
	for i, x := range snap.Nodes {
		if x.Name == f.Node {
			n.Zone, registered = x.Zone(), &snap.Nodes[i]
		}
	}
	f.Services.Apply(&n, addressesOf(registered, addrs))
	return n
}

// Masquerade says which packets of its pods the node gives its own address.
func Masquerade(f facts.Facts, own api.Lease) masq.Config {
	c := masq.Config{
		Mode: masq.None, Network: f.Network, NetworkV6: f.NetworkV6, Subnet: own.Subnet, SubnetV6: own.SubnetV6,
		Underlay: f.Connected, NonMasquerade: f.Masq.NonMasquerade, Forward: !f.Masq.NoForward, KeepPorts: f.Masq.KeepPorts,
		MarkBits: f.Masq.MarkBits,
	}
	if f.Attach == "bridge" {
		c.Bridge = f.Bridge
	}
	switch {
	case f.Backend == lease.L2:
		// The host is no part of the pods' link: nothing of theirs leaves by it. Frames between them may pass the rules all the same, where
		// br_netfilter shows them to iptables.
	case f.MasqueradePods:
		c.Mode = masq.Pods
	case f.IPMasq:
		c.Mode = masq.Outside
	}
	return c
}

// Objects are the listeners as kernel objects, for explain.
func (r Rules) Objects() []netstate.Object {
	out := make([]netstate.Object, len(r.Listeners))
	for i, l := range r.Listeners {
		out[i] = l
	}
	return out
}

// Explainers are the rulesets as explain asks them; local reports whether an address is the host's own.
func (r Rules) Explainers(local func(netip.Addr) bool) []explain.Rules {
	var out []explain.Rules
	if r.Table != nil {
		out = append(out, explain.NFTables{Table: *r.Table, Local: local})
	}
	if len(r.XT.V4)+len(r.XT.V6) > 0 {
		out = append(out, explain.IPTables{Rules: r.XT, Local: local})
	}
	return out
}

// addressesOf are a node's InternalIP addresses, or the given ones when it is not registered.
func addressesOf(n *api.Node, own []netip.Addr) []netip.Addr {
	if n == nil || len(n.Addresses) == 0 {
		return own
	}
	return n.Addresses
}
