package kube

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/api"
)

// Labels by which a service says that it is not for the node's service proxy.
const (
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	labelHeadless  = corev1.IsHeadlessService
)

// defaultAffinity is sessionAffinityConfig.clientIP.timeoutSeconds when unset: three hours.
const defaultAffinity = 10800

// convertService returns the service's ports without endpoints: none for a headless or ExternalName service, one of another proxy,
// or one without a usable cluster IP.
func convertService(s *corev1.Service) []api.ServicePort {
	if s.Spec.Type == corev1.ServiceTypeExternalName || hasLabel(s.Labels, labelProxyName) || hasLabel(s.Labels, labelHeadless) {
		return nil
	}
	base := api.ServicePort{
		ClusterIPs:      clusterIPs(s),
		AffinitySeconds: affinity(s),
		InternalLocal:   s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal:   s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		PublishNotReady: s.Spec.PublishNotReadyAddresses,
	}
	if len(base.ClusterIPs) == 0 {
		return nil
	}
	balance(s, &base)
	outside(s, &base)
	var out []api.ServicePort
	for _, p := range s.Spec.Ports {
		sp := base
		sp.Name = api.ServicePortName{Namespace: s.Namespace, Name: s.Name, Port: p.Name}
		sp.Protocol, sp.Port, sp.NodePort = protocol(p.Protocol), port(p.Port), port(p.NodePort)
		// Two ports of one name and protocol are none that an API server takes: everything else tells ports apart by these.
		twin := func(x api.ServicePort) bool { return x.Name == sp.Name && x.Protocol == sp.Protocol }
		if sp.Port == 0 || sp.Protocol == "" || slices.ContainsFunc(out, twin) {
			continue
		}
		out = append(out, sp)
	}
	return out
}

func hasLabel(labels map[string]string, key string) bool {
	_, ok := labels[key]
	return ok
}

// clusterIPs is empty for a headless service, whose cluster IP is the word None.
func clusterIPs(s *corev1.Service) []netip.Addr {
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	if len(s.Spec.ClusterIPs) > 0 {
		return addrs(s.Spec.ClusterIPs)
	}
	return addrs([]string{s.Spec.ClusterIP})
}

func addrs(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		if a, ok := parseAddr(t); ok {
			out = append(out, a)
		}
	}
	return out
}

func affinity(s *corev1.Service) int {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil && *c.ClientIP.TimeoutSeconds > 0 {
		return int(*c.ClientIP.TimeoutSeconds)
	}
	return defaultAffinity
}

// loadBalancer returns the load balancer's addresses that the node itself answers. Those of ipMode Proxy (KEP-1860) and host names are
// reached through the balancer, which then opens connections of its own.
func loadBalancer(s *corev1.Service) (vips []netip.Prefix, proxies bool) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IPMode != nil && *in.IPMode == corev1.LoadBalancerIPModeProxy || in.IP == "" && in.Hostname != "" {
			proxies = true
			continue
		}
		if a, ok := parseAddr(in.IP); ok {
			vips = append(vips, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return vips, proxies
}

// nobody are source ranges that no packet comes from.
var nobody = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("::/128")}

// sourceRanges are who may use the load balancer's addresses, nil for everybody. When none can be read it is nobody: an unreadable limit
// is not no limit.
func sourceRanges(s *corev1.Service) []netip.Prefix {
	var sources []netip.Prefix
	wanted := 0
	for _, text := range s.Spec.LoadBalancerSourceRanges {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		wanted++
		if p, ok := parsePrefix(text); ok {
			sources = append(sources, p)
		}
	}
	if wanted > 0 && len(sources) == 0 {
		return nobody
	}
	return sources
}

// protocol defaults to TCP; an unknown one is "".
func protocol(p corev1.Protocol) api.Protocol {
	switch p {
	case corev1.ProtocolTCP, "":
		return api.TCP
	case corev1.ProtocolUDP:
		return api.UDP
	case corev1.ProtocolSCTP:
		return api.SCTP
	}
	return ""
}

// port is 0 for a number that is no port.
func port(n int32) uint16 {
	if n < 1 || n > 65535 {
		return 0
	}
	return uint16(n)
}
