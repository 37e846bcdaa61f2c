package kube

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/api"
)

// convertNode takes from a node what planners need. Addresses and CIDRs that do not parse are left out: the API server checks
// them, so one that comes through is hostile or from a newer world.
func convertNode(n *corev1.Node) api.Node {
	out := api.Node{Name: n.Name, Labels: maps.Clone(n.Labels), Annotations: maps.Clone(n.Annotations)}
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, ok := parseAddr(a.Address); ok {
			out.Addresses = append(out.Addresses, addr)
		}
	}
	out.PodCIDRs = podCIDRs(n)
	out.Leaving = n.DeletionTimestamp != nil || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == autoscalerTaint })
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	return out
}

// autoscalerTaint is what the cluster autoscaler puts on a node that it is about to delete.
const autoscalerTaint = "ToBeDeletedByClusterAutoscaler"

// podCIDRs returns at most one prefix of each family, the first wins.
func podCIDRs(n *corev1.Node) []netip.Prefix {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 && n.Spec.PodCIDR != "" {
		texts = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, text := range texts {
		p, ok := parsePrefix(text)
		if !ok || len(out) > 0 && out[0].Addr().Is6() == p.Addr().Is6() {
			continue
		}
		out = append(out, p)
		if len(out) == 2 {
			break
		}
	}
	return out
}

func convertPod(p *corev1.Pod) api.Pod {
	out := api.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Node: p.Spec.NodeName,
		HostNetwork: p.Spec.HostNetwork, Labels: maps.Clone(p.Labels), Phase: string(p.Status.Phase),
	}
	texts := make([]string, 0, len(p.Status.PodIPs)+1)
	for _, ip := range p.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if len(texts) == 0 && p.Status.PodIP != "" {
		texts = append(texts, p.Status.PodIP)
	}
	for _, text := range texts {
		if a, ok := parseAddr(text); ok {
			out.IPs = append(out.IPs, a)
		}
	}
	return out
}

// parseAddr reads an address that may be put on a wire: no zone, not unspecified, not multicast. IPv4 in IPv6 becomes IPv4.
func parseAddr(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	a = a.Unmap()
	if a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, false
	}
	return a, true
}

// parsePrefix reads a CIDR and clears its host bits.
func parsePrefix(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}
