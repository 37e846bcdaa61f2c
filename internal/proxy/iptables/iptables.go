// Package iptables plans services as iptables rules, in chains structured as those of kube-proxy's mode of that name: a linear list of
// services, a chain for each service port that draws an endpoint, and a chain for each endpoint that changes the destination.
//
//	nat     PREROUTING, OUTPUT  -> WEFT-SERVICES    cluster, external and load balancer addresses, a rule each
//	                            -> WEFT-NODEPORTS   NodePorts, for the node's own addresses
//	        WEFT-SVC-<hash>     draws one of all endpoints; for cluster addresses marks what must be masqueraded
//	        WEFT-SVL-<hash>     draws one of the node's own endpoints (traffic policy Local)
//	        WEFT-EXT-<hash>     packets from outside the cluster: marks them, or tells them from the cluster's own
//	        WEFT-FW-<hash>      lets the source ranges of a load balancer address pass on to WEFT-EXT
//	        WEFT-FWN-<hash>     the same for the NodePort, and the node itself
//	        WEFT-SEP-<hash>     one endpoint: marks hairpins, remembers the client (session affinity), DNAT
//	        POSTROUTING         -> WEFT-MASQUERADE  what is marked
//	filter  INPUT, OUTPUT, FORWARD -> WEFT-SERVICES, WEFT-NODEPORTS  what no nat rule took: reject or drop
//	        FORWARD             -> WEFT-PROXY-FORWARD  connection tracking's invalid packets
//	        INPUT               -> WEFT-HEALTH-CHECKS
//
// Where kube-proxy's chains are named KUBE-..., ours begin with WEFT-, the mark that tells them from those of a kube-proxy which runs
// beside us, or did: its chains and jumps are never touched, and it does not touch ours.
//
// The jump to the NodePorts is a second rule of PREROUTING and OUTPUT, not the last one of WEFT-SERVICES: so every chain of ours is
// the union of what each service adds to it, in any order.
//
// Packets to a port that a service's cluster address does not have pass untouched, as with kube-proxy (mode nftables rejects them): a
// rule for each address would be one more list that every new connection walks through.
//
// Floor 2, planners: pure.
package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/xt"
)

// Planner plans services for a node, with the proxy's settings. The zero Planner is kube-proxy's defaults.
type Planner struct {
	// MasqueradeAll gives all connections to cluster addresses the node's address as their source, not only those that need it.
	MasqueradeAll bool
	// Mark is the bit of the packet mark that asks for masquerading; 0 is DefaultMark.
	Mark uint32
	// KeepPorts lets masqueraded connections keep their source ports where possible.
	KeepPorts bool
	// Liberal lets packets pass that connection tracking calls invalid (kube-proxy's --conntrack-tcp-be-liberal).
	Liberal bool
}

// DefaultMark is the bit kube-proxy uses for the same.
const DefaultMark = 0x4000

func (p Planner) mark() uint32 {
	if p.Mark == 0 {
		return DefaultMark
	}
	return p.Mark
}

// The chains every node has. Those in both tables have one name in both.
const (
	chainServices   = "WEFT-SERVICES"      // nat, filter
	chainNodePorts  = "WEFT-NODEPORTS"     // nat, filter
	chainMark       = "WEFT-MARK-MASQ"     // nat
	chainOutside    = "WEFT-MARK-OUTSIDE"  // nat, with several pod networks of a family
	chainMasquerade = "WEFT-MASQUERADE"    // nat
	chainForward    = "WEFT-PROXY-FORWARD" // filter
	chainHealth     = "WEFT-HEALTH-CHECKS" // filter
)

// The kinds of chains that a service port has.
const (
	kindCluster  = "WEFT-SVC-"
	kindLocal    = "WEFT-SVL-"
	kindExternal = "WEFT-EXT-"
	kindFirewall = "WEFT-FW-"
	kindPortFW   = "WEFT-FWN-"
	kindEndpoint = "WEFT-SEP-"
)

// hashLen keeps names below the 29 bytes the kernel has room for.
const hashLen = 16

// chainName names a chain of a service port; an endpoint's has its address and port in the hash.
func chainName(kind string, s api.ServicePort, of ...string) string {
	parts := append([]string{s.Name.Namespace, s.Name.Name, s.Name.Port, string(s.Protocol)}, of...)
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return kind + base32.StdEncoding.EncodeToString(sum[:])[:hashLen]
}

// families returns the families the node is planned for: those it has an address of.
func families(n proxy.Node) []bool {
	var out []bool
	for _, v6 := range []bool{false, true} {
		if n.Address(v6).IsValid() {
			out = append(out, v6)
		}
	}
	return out
}

// All plans all service ports: Base and the union of the plans of each.
func (p Planner) All(n proxy.Node, services []api.ServicePort) xt.Ruleset {
	parts := make([]xt.Ruleset, 0, len(services)+1)
	parts = append(parts, p.Base(n))
	for _, s := range services {
		parts = append(parts, p.Plan(n, s))
	}
	return xt.Union(parts...)
}

// lists are the chains that every service may have rules in. Addresses and ports are a service's own (see proxy.Shares), so the order of
// services does not matter.
var lists = []string{chainServices, chainNodePorts, chainHealth}

// unordered marks the lists in a plan.
func unordered(r xt.Ruleset) xt.Ruleset {
	for _, v6 := range []bool{false, true} {
		for _, t := range *r.Family(v6) {
			for i := range t.Chains {
				t.Chains[i].Unordered = slices.Contains(lists, t.Chains[i].Name)
			}
		}
	}
	return r
}
