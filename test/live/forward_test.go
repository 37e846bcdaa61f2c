package live

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/test/labtest"
)

// echoes is a check that the pod on node 1 reaches the one on node 2 and back.
func (c *cluster) echoes(server string) func() error {
	return func() error {
		out, err := c.Lab.Kubectl(c.T.Context(), "exec", "client", "--", "sh", "-c", "echo through | nc -w 1 "+server+" 9000")
		if err == nil && !strings.Contains(out, "through") {
			err = fmt.Errorf("no answer: %q", out)
		}
		return err
	}
}

// TestForwardPolicyDrop: hosts whose FORWARD drops, as dockerd leaves it, in either variant of iptables, in mode nftables.
func TestForwardPolicyDrop(t *testing.T) {
	c := up(t, topology.Default())
	server := c.pods()
	passes := c.echoes(server)
	labtest.Eventually(t, "at first", 10*time.Second, passes)
	for _, variant := range []string{"iptables-nft", "iptables-legacy"} {
		has := c.Says(node1, variant+"-save -t filter", ":FORWARD DROP", "-A WEFT-FORWARD -s 172.16.0.0/12 -j ACCEPT", "-A FORWARD -m comment")
		for _, h := range []string{node1, node2} {
			c.Must(h, variant+" -P FORWARD DROP")
		}
		took := labtest.Eventually(t, variant+" -P FORWARD DROP", 10*time.Second, has)
		labtest.Eventually(t, variant+", through both nodes", 10*time.Second, passes)
		t.Logf("%s: rules were there after %s", variant, took.Round(time.Millisecond))
	}
	t.Run("flushed", func(t *testing.T) {
		for _, variant := range []string{"iptables-nft", "iptables-legacy"} {
			took := c.repair(node1, variant+" -F FORWARD; "+variant+" -F WEFT-FORWARD", variant+"-save -t filter | grep -q -- '-A FORWARD -m comment' && "+
				variant+"-save -t filter | grep -q -- '-A WEFT-FORWARD -d 172.16.0.0/12 -j ACCEPT'", 10*time.Second)
			t.Logf("%s: back after %s", variant, took.Round(time.Millisecond))
		}
		labtest.Eventually(t, "packets pass again", 10*time.Second, passes)
	})
	t.Run("a table of somebody else", func(t *testing.T) {
		c.Must(node1, "nft 'table inet fw { chain forward { type filter hook forward priority 0; policy drop; }; }'")
		labtest.Eventually(t, "weft status says so", 10*time.Second, c.Says(node1, "weft status", "warning   table inet fw, chain forward, at hook forward, drops"))
		if passes() == nil {
			t.Error("a table with policy drop dropped nothing: then it needs no warning")
		}
		c.Must(node1, "nft add rule inet fw forward ip saddr 172.16.0.0/12 accept; nft add rule inet fw forward ip daddr 172.16.0.0/12 accept")
		labtest.Eventually(t, "with the advice taken", 10*time.Second, passes)
		c.Must(node1, "nft delete table inet fw")
	})
	t.Run("a rule before ours", func(t *testing.T) {
		c.Must(node1, "iptables-nft -I FORWARD -j DROP")
		labtest.Eventually(t, "weft status says so", 10*time.Second, c.Says(node1, "weft status", "iptables: -A FORWARD -j DROP stands before weft's rule"))
		c.Must(node1, "iptables-nft -D FORWARD -j DROP")
		labtest.Eventually(t, "packets pass again", 10*time.Second, passes)
	})
	t.Run("flags", func(t *testing.T) {
		if err := c.Restart(t.Context(), node1, lab.Agent, "--forward-rules=false", "--non-masquerade-cidr=172.17.0.0/16,fd00:9::/32",
			"--masquerade-mark-bit=20", "--ip-masq-random-fully=false"); err != nil {
			t.Fatal(err)
		}
		labtest.Eventually(t, "the rules go", 15*time.Second, func() error {
			if out := c.Must(node1, "iptables-nft-save -t filter"); strings.Contains(out, "WEFT-FORWARD") {
				return fmt.Errorf("still there:\n%s", out)
			}
			return nil
		})
		labtest.Eventually(t, "the table has them", 10*time.Second, c.Says(node1, "nft list chain inet weft pods-keep",
			"ip daddr 172.17.0.0/16 snat ip to ip saddr", "meta mark & 0x00100000 == 0x00100000 return"))
		if out := c.Must(node1, "nft list chain inet weft pods-postrouting"); strings.Contains(out, "fully-random") {
			t.Errorf("ports are random:\n%s", out)
		}
		if out, err := c.Sh(node1, "weft agent --non-masquerade-cidr=10.0.0.1/8"); err == nil || !strings.Contains(err.Error()+out, "without host bits") {
			t.Errorf("a bad network: %v %s", err, out)
		}
	})
}
