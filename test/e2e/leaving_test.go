package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestLeaving: load balancers are told of a node that the cluster autoscaler is about to delete, and of one that stays after all. From
// another host they ask kube-proxy's port, and metrics are not to be had there.
func TestLeaving(t *testing.T) {
	c, _ := borrow(t, nftables)
	top, _ := c.Topology().Host(node1)
	says := func(path, want string) func() error {
		return func() error {
			out, _ := c.sh(t.Context(), master, "curl -s -m 5 -w ' %{http_code}' http://"+top.Address.String()+":10256"+path)
			if !strings.Contains(out, want) {
				return errors.New(path + " answers " + out + ", want " + want)
			}
			return nil
		}
	}
	stays, leaves := `"nodeEligible":true,"healthy":true}`+"\n 200", `"nodeEligible":false,"healthy":true}`+"\n 503"
	eventually(t, "a node like any other", 5*time.Second, says("/healthz", stays))
	c.kubectl(t, "taint", "node", node1, "ToBeDeletedByClusterAutoscaler=1:NoSchedule")
	eventually(t, "a node on its way out", 5*time.Second, says("/healthz", leaves))
	eventually(t, "its agent lives", 5*time.Second, says("/livez", " 200"))
	c.kubectl(t, "taint", "node", node1, "ToBeDeletedByClusterAutoscaler-")
	eventually(t, "a node that stays after all", 5*time.Second, says("/healthz", stays))
	eventually(t, "no metrics for others", 5*time.Second, says("/metrics", " 404"))
	if out := c.must(t, node1, "curl -s 127.0.0.1:10249/metrics; curl -s 127.0.0.1:10249/proxyMode"); !strings.HasSuffix(out, nftables) ||
		!strings.Contains(out, `kubeproxy_proxy_healthz_total{code="503"}`) || !strings.Contains(out, "weft_converged 1") {
		t.Errorf("metrics of %s:\n%s", node1, out)
	}
	if out := c.must(t, node1, "cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established; weft diff"); out != "86400" {
		t.Errorf("an idle connection is remembered for %s, want 86400", out)
	}
}
