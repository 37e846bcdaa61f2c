package nft_test

import (
	"testing"

	"weft/internal/api"
)

// TestAffinityFollowsPolicy: a client from outside that was sent to an endpoint on another node is not sent there any more once the service keeps
// to the node's own (externalTrafficPolicy Local), though that endpoint still serves clients in the cluster.
func TestAffinityFollowsPolicy(t *testing.T) {
	c := newCluster(t)
	sticky := func(local bool, hosts ...string) api.ServicePort {
		return with(service(api.TCP, hosts...), func(s *api.ServicePort) {
			s.AffinitySeconds, s.NodePort, s.ExternalLocal = 60, 30080, local
			for i, e := range s.Endpoints {
				if h := e.Addr.Addr().String(); h == "172.16.2.2" || h == "fd00:16:2::2" {
					s.Endpoints[i].Node = "other"
				}
			}
		})
	}
	for _, x := range []struct{ to, node, client string }{
		{"192.0.2.1:30080", "192.0.2.1", "192.0.2.2"}, {"[2001:db8::1]:30080", "2001:db8::1", "2001:db8::2"},
	} {
		c.set(t, sticky(false, "b"))
		if got := c.ask(t, "outside", "tcp", x.to); got != "b "+gatewayOf(x.node) {
			t.Errorf("policy Cluster: %q", got)
		}
		c.set(t, sticky(true, "a", "b"))
		if got := c.ask(t, "outside", "tcp", x.to); got != "a "+x.client {
			t.Errorf("policy Local: %q", got)
		}
		c.set(t, sticky(false, "a", "b"))
		if got := c.ask(t, "outside", "tcp", x.to); got[:1] != "a" && got[:1] != "b" {
			t.Errorf("policy Cluster again: %q", got)
		}
	}
}

// gatewayOf is the node's address on the way to b, by which b sees a connection that is masqueraded.
func gatewayOf(node string) string {
	if node == "192.0.2.1" {
		return "172.16.2.1"
	}
	return "fd00:16:2::1"
}
