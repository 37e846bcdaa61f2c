package leases

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// nodes takes the leases from the nodes' podCIDRs and annotations. Refused are, each alone and without harm to the others, what cannot
// be read, what lies outside the network, what overlaps the own subnet, a route of the host, or the subnet of a node whose name comes
// first.
func (r *nodeReader) nodes(c lease.Config, self api.Lease, avoid []claim.HostRoute, nodes []api.Node) kubeView {
	var v kubeView
	defer r.end()
	i := slices.IndexFunc(nodes, func(n api.Node) bool { return n.Name == self.Node })
	if i < 0 {
		v.problem = fmt.Sprintf("node %s is not registered with the Kubernetes API yet: waiting for it (is --node-name right?)", self.Node)
	} else {
		v.own, v.stale, v.problem = ownOf(c, r.prefix, self, avoid, nodes[i])
	}
	avoid = slices.DeleteFunc(slices.Clone(avoid), func(h claim.HostRoute) bool {
		_, matters := claim.Obstacle(c, []claim.HostRoute{h}, c.V4.Network, c.V6.Network)
		return !matters
	})
	refuse := func(n api.Node, kind, why string) {
		v.refused = append(v.refused, claim.Refusal{Key: "node " + n.Name, Value: annotationsOf(n, r.prefix), Kind: kind, Reason: why})
	}
	good, leases := make([]int, 0, len(nodes)), make([]api.Lease, 0, len(nodes))
	for i, n := range nodes {
		if n.Name == self.Node {
			continue
		}
		l, err := r.lease(n)
		if errors.Is(err, lease.ErrNotManaged) {
			continue // not a node of the overlay
		}
		if kind, why := judgePeer(c, l, err, v.own, avoid, nodes); why != "" {
			refuse(n, kind, why)
			continue
		}
		good, leases = append(good, i), append(leases, l)
	}
	clash := clashing(leases)
	v.peers = make([]api.Lease, 0, len(leases))
	for i, l := range leases {
		if why := overlapOf(leases, i, clash); why != "" {
			refuse(nodes[good[i]], claim.Overlapping, why)
			continue
		}
		v.peers = append(v.peers, project(c, l))
	}
	return v
}

// clashing says whether any two of the leases overlap: rarely.
func clashing(all []api.Lease) bool {
	for _, v6 := range []bool{false, true} {
		sorted := make([]netip.Prefix, 0, len(all))
		for _, l := range all {
			if p := lease.Subnet(l, v6); p.IsValid() {
				sorted = append(sorted, p)
			}
		}
		slices.SortFunc(sorted, netip.Prefix.Compare)
		for i := 1; i < len(sorted); i++ {
			if sorted[i-1].Overlaps(sorted[i]) {
				return true
			}
		}
	}
	return false
}

// overlapOf says which lease before the i-th it overlaps, "" for none. The nodes are by name, so every host refuses the same ones.
func overlapOf(all []api.Lease, i int, clash bool) string {
	if !clash {
		return ""
	}
	j := slices.IndexFunc(all[:i], func(other api.Lease) bool { return shares(all[i], other) })
	if j < 0 {
		return ""
	}
	return fmt.Sprintf("node %s: spec.podCIDR %s overlaps %s of node %s: recreate one of the two nodes",
		all[i].Node, subnets(all[i]), subnets(all[j]), all[j].Node)
}

// ownOf is the node's own lease, and whether its annotations have to be written.
func ownOf(c lease.Config, prefix string, self api.Lease, avoid []claim.HostRoute, n api.Node) (own api.Lease, stale bool, problem string) {
	if len(n.PodCIDRs) == 0 {
		return own, false, fmt.Sprintf("node %s has no spec.podCIDR yet: waiting for the controller that allocates it (--allocate-node-cidrs "+
			"of the controller manager or of weft-server)", n.Name)
	}
	own = self
	for _, p := range n.PodCIDRs {
		to := &own.Subnet
		if p.Addr().Is6() {
			to = &own.SubnetV6
		}
		if to.IsValid() || !p.IsValid() || p != p.Masked() {
			return own, false, fmt.Sprintf("node %s: spec.podCIDRs: %s is not the one network of its family: recreate the node", n.Name, p)
		}
		*to = p
	}
	if err := c.Check(own); err != nil {
		return own, false, fmt.Sprintf("node %s: spec.podCIDR: %v", n.Name, err)
	}
	if h, ok := claim.Obstacle(c, avoid, own.Subnet, own.SubnetV6); ok {
		return own, false, fmt.Sprintf("node %s: spec.podCIDR %s overlaps this host's own route %s: remove the route or recreate the node",
			n.Name, subnets(own), h)
	}
	own = project(c, own)
	return own, !saysAll(n, prefix, own), ""
}

// saysAll reports whether the node's annotations are those of the lease, byte for byte: what they say of a family that the node has no
// podCIDR of, the lease as read from them does not.
func saysAll(n api.Node, prefix string, own api.Lease) bool {
	want, err := lease.Annotations(own, prefix)
	if err != nil || want[lease.AlsoAnnotation] != n.Annotations[lease.AlsoAnnotation] {
		return false
	}
	for k, v := range want {
		if n.Annotations[k] != v {
			return false
		}
	}
	return true
}

// judgePeer says in a word and in a sentence why a node's lease is refused, "" when it is not.
func judgePeer(
	c lease.Config, l api.Lease, err error, own api.Lease, avoid []claim.HostRoute, nodes []api.Node,
) (kind, why string) {
	if err != nil {
		return claim.Malformed, err.Error()
	}
	if err := c.Check(l); err != nil {
		return claim.Outside, fmt.Sprintf("node %s: spec.podCIDR: %v", l.Node, err)
	}
	if shares(l, own) {
		return claim.OwnSubnet, fmt.Sprintf("node %s: spec.podCIDR %s overlaps this node's own %s: recreate one of the two nodes",
			l.Node, subnets(l), subnets(own))
	}
	for _, h := range avoid {
		one, ok := claim.Obstacle(c, []claim.HostRoute{h}, l.Subnet, l.SubnetV6)
		if ok && !one.OfOverlay(l, func(a netip.Addr) bool { return nodeAddress(nodes, a) }) {
			return claim.InTheWay, fmt.Sprintf("node %s: spec.podCIDR %s overlaps this host's own route %s: remove the route or recreate the node",
				l.Node, subnets(l), one)
		}
	}
	return "", ""
}

func nodeAddress(nodes []api.Node, a netip.Addr) bool {
	return slices.ContainsFunc(nodes, func(n api.Node) bool { return slices.Contains(n.Addresses, a) })
}

// project leaves out the family the network does not use.
func project(c lease.Config, l api.Lease) api.Lease {
	if !c.EnableIPv4 {
		l.Subnet, l.VTEPMAC = netip.Prefix{}, ""
	}
	if !c.EnableIPv6 {
		l.SubnetV6, l.VTEPMACv6 = netip.Prefix{}, ""
	}
	return l
}

func shares(a, b api.Lease) bool {
	return a.Subnet.IsValid() && b.Subnet.IsValid() && a.Subnet.Overlaps(b.Subnet) ||
		a.SubnetV6.IsValid() && b.SubnetV6.IsValid() && a.SubnetV6.Overlaps(b.SubnetV6)
}

func subnets(l api.Lease) string {
	var out []string
	for _, p := range facts.Valid(l.Subnet, l.SubnetV6) {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}

// annotationsOf are a node's annotations of the network, for the log.
func annotationsOf(n api.Node, prefix string) string {
	var out []string
	for k, v := range n.Annotations {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			out = append(out, fmt.Sprintf("%s=%.200q", rest, v))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
