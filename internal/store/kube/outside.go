package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/api"
)

// outside reads the addresses of a service for clients outside the cluster: those of the families that the service has. A load balancer that
// takes connections at an address of another family translates them, and the node must let packets go there. An externalIP that can't
// be served is noted in Refused.
func outside(s *corev1.Service, sp *api.ServicePort) {
	var refused []string
	for _, text := range s.Spec.ExternalIPs {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		switch a, ok := parseAddr(text); {
		case !ok:
			refused = append(refused, fmt.Sprintf("externalIPs %s: want an address like 192.0.2.1 or 2001:db8::1; it is not served", short(text)))
		case !hasFamily(sp.ClusterIPs, a):
			refused = append(refused, fmt.Sprintf("externalIPs %s: the service has no cluster address of this family; it is not served, see ipFamilies", a))
		default:
			sp.External = append(sp.External, a)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		sp.LoadBalancer, sp.BalancerProxies = loadBalancer(s)
		sp.LoadBalancer = slices.DeleteFunc(sp.LoadBalancer, func(p netip.Prefix) bool { return !hasFamily(sp.ClusterIPs, p.Addr()) })
		sp.SourceRanges = sourceRanges(s)
		if sp.ExternalLocal {
			sp.HealthCheckNodePort = port(s.Spec.HealthCheckNodePort)
		}
	}
	refuse(sp, refused...)
}

// refuse adds to what the service wants and does not get.
func refuse(sp *api.ServicePort, texts ...string) {
	if sp.Refused != "" {
		texts = append([]string{sp.Refused}, texts...)
	}
	sp.Refused = strings.Join(texts, "; ")
}

// hasFamily reports whether one of the addresses is of the family of a.
func hasFamily(list []netip.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(x netip.Addr) bool { return x.Is6() == a.Is6() })
}
