package nftables

import (
	"encoding/hex"
	"net/netip"
	"strconv"

	"weft/internal/api"
	"weft/internal/nft"
	"weft/internal/proxy"
)

// protocols are the numbers of the transport protocols.
var protocols = map[api.Protocol]uint8{api.TCP: nft.TCP, api.UDP: nft.UDP, api.SCTP: nft.SCTP}

// source says whose connections get the node's address as source.
type source byte

const (
	keep    source = 'n' // nobody's
	outside source = 'c' // of clients outside the cluster
	all     source = 'm' // everybody's
)

// choice is what a service's chain does: draw one of the endpoints of a list.
type choice struct {
	list
	filling         // of the list
	masq     source // who is masqueraded
	affinity int    // seconds a client keeps its endpoint, 0: none
}

// chainName says all of the choice, so that equal chains have equal names: "n4-4", "port-m16-a60-local-4", "nh1021-4".
func (c choice) chainName() string {
	kind := string(c.masq)
	if c.hashed {
		kind += "h"
	}
	kind += strconv.Itoa(c.slots)
	if c.affinity > 0 {
		kind += "-a" + strconv.Itoa(c.affinity)
	}
	if c.port {
		kind = "port-" + kind
	}
	if c.local {
		kind += "-local"
	}
	return kind + "-" + c.suffix
}

// chain is the chain of a choice.
func (p Planner) chain(n proxy.Node, c choice) nft.Chain {
	out := nft.Chain{Name: c.chainName()}
	mark := nft.SetMark{Mask: p.mark(), Value: p.mark()}
	switch c.masq {
	case all:
		out.Rules = append(out.Rules, rule(mark))
	case outside:
		var s []nft.Statement
		for _, cidr := range c.clusterCIDRs(n) {
			s = append(s, nft.Match{Field: c.saddr, Not: true, Prefix: cidr})
		}
		out.Rules = append(out.Rules, rule(append(s, mark)...))
	}
	if c.affinity > 0 {
		out.Rules = append(out.Rules, c.remembered()...)
	}
	if c.hashed { // all slots are full
		out.Rules = append(out.Rules, c.take(c.hashKey(c.slots)))
	} else {
		for range draws {
			out.Rules = append(out.Rules, c.draw(c.slots))
		}
		out.Rules = append(out.Rules, c.draw(surely(c.slots)))
	}
	out.Rules = append(out.Rules, rule(nft.Verdict{Kind: nft.Goto, Chain: c.unserved()}))
	return out
}

// draw sends the packet to the endpoint in a random slot below n; when the slot is empty the next rule follows.
func (c choice) draw(n int) nft.Rule { return c.take(c.key(n)) }

// take sends the packet to the endpoint in the slot that the key names.
func (c choice) take(key []nft.Expr) nft.Rule {
	if c.affinity > 0 {
		return rule(nft.VMap{Key: key, Map: c.picks().Name})
	}
	return rule(nft.DNAT{V6: c.v6, Key: key, Map: c.endpoints().Name})
}

// remembered sends a client to the endpoint it had, and remembers it for another while.
func (c choice) remembered() []nft.Rule {
	recent, key := c.recent().Name, c.recentKey()
	return []nft.Rule{
		rule(nft.Lookup{Key: key, Set: recent},
			nft.Update{Set: recent, Key: key, Timeout: uint32(c.affinity), Data: exprs(c.daddr, nft.ThDport)}),
		rule(nft.DNAT{V6: c.v6, Key: key, Map: recent}),
	}
}

// endpointChain remembers a new client's endpoint and sends it there.
func (c choice) endpointChain(proto uint8, to netip.AddrPort) nft.Chain {
	name := endpointName(proto, to.Addr(), to.Port()) + strconv.Itoa(c.affinity)
	if c.local {
		name += "-local"
	}
	return nft.Chain{
		Name: name,
		Rules: []nft.Rule{
			rule(nft.Update{Set: c.recent().Name, Key: c.recentKey(), Timeout: uint32(c.affinity), To: to}),
			rule(nft.Match{Field: nft.L4Proto, Num: uint32(proto)}, nft.DNAT{V6: c.v6, To: to}),
		},
	}
}

// endpointName begins the names of an endpoint's chains; the affinity timeout follows.
func endpointName(proto uint8, a netip.Addr, port uint16) string {
	return "e" + strconv.Itoa(int(proto)) + "-" + hex.EncodeToString(a.AsSlice()) + "-" + strconv.Itoa(int(port)) + "-a"
}

// split is the chain of an address whose packets from outside stay on the node (externalTrafficPolicy Local): clients in the
// cluster and the node itself reach all endpoints, others the node's own and keep their source address.
func (p Planner) split(n proxy.Node, inside, local choice) nft.Chain {
	out := nft.Chain{Name: "split-" + inside.chainName() + "-" + local.chainName()}
	to := nft.Verdict{Kind: nft.Goto, Chain: inside.chainName()}
	for _, cidr := range inside.clusterCIDRs(n) {
		out.Rules = append(out.Rules, rule(nft.Match{Field: inside.saddr, Prefix: cidr}, to))
	}
	mark := nft.SetMark{Mask: p.mark(), Value: p.mark()}
	out.Rules = append(out.Rules, rule(nft.Match{Field: nft.FibSaddrType, Num: nft.TypeLocal}, mark, to))
	out.Rules = append(out.Rules, rule(nft.Verdict{Kind: nft.Goto, Chain: local.chainName()}))
	return out
}
