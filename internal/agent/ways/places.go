package ways

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/overlay/l2"
)

// PodsAnnotation is the node annotation in which an agent publishes its pods' addresses, a list for each pod, under backend l2. A node may
// read all nodes but only its own pods, and not every pod is behind a service. The pods' MACs follow from their addresses.
const PodsAnnotation = "weft.dev/pods"

// PodPlaces is the annotation's value for the pods.
func PodPlaces(pods []attach.Pod) (string, error) {
	all := make([][]netip.Addr, 0, len(pods))
	for _, p := range pods {
		if len(p.IPs) > 0 {
			all = append(all, p.IPs)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return "", fmt.Errorf("encode pods: %w", err)
	}
	return string(b), nil
}

// Named gives the leases their holders' names, which those in etcd lack: the node whose address is the lease's public one.
func Named(nodes []api.Node, leases []api.Lease) []api.Lease {
	holder := map[netip.Addr]string{}
	for _, n := range nodes {
		for _, a := range n.Addresses {
			holder[a] = n.Name
		}
	}
	out := slices.Clone(leases)
	for i, l := range out {
		if l.Node == "" {
			out[i].Node = cmp.Or(holder[l.PublicIP], holder[l.PublicIPv6])
		}
	}
	return out
}

// Endpoints reads where the pods are; the leases must be named. An address outside of the subnet its node leases is left out: a node
// speaks for its own pods only.
func Endpoints(nodes []api.Node, leases []api.Lease) []l2.Endpoint {
	subnets := map[string][]netip.Prefix{}
	for _, l := range leases {
		subnets[l.Node] = facts.Valid(l.Subnet, l.SubnetV6)
	}
	var out []l2.Endpoint
	for _, n := range nodes {
		text, ok := n.Annotations[PodsAnnotation]
		if !ok {
			continue
		}
		var pods [][]netip.Addr
		if json.Unmarshal([]byte(text), &pods) != nil {
			continue // that node's pods can't be reached, the others can
		}
		for _, ips := range pods {
			for _, ip := range ips {
				if slices.ContainsFunc(subnets[n.Name], func(s netip.Prefix) bool { return s.Contains(ip) }) {
					out = append(out, l2.Endpoint{IP: ip, MAC: attach.MAC(ips[0]), Node: n.Name})
				}
			}
		}
	}
	return out
}
