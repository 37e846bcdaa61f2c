package live

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/test/labtest"
)

// podsManifest are a server on node 2 that sends back what it gets, and a client on node 1.
const podsManifest = `
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  nodeName: kube-node2
  containers: [{name: c, image: busybox, command: [nc, -ll, -p, "9000", -e, cat]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: kube-node1
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
`

func (c *cluster) pods() (server string) {
	if err := c.WriteFile(c.T.Context(), master, "/root/pods.yaml", []byte(podsManifest)); err != nil {
		c.T.Fatal(err)
	}
	c.Kubectl("apply", "-f", "/root/pods.yaml")
	c.Kubectl("wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=30s")
	return c.Kubectl("get", "pod", "server", "-o", "jsonpath={.status.podIP}")
}

// table collects what the test measured.
type table struct{ strings.Builder }

func (r *table) row(what string, repair, gap time.Duration) {
	fmt.Fprintf(r, "%-52s %9.1f ms %9.0f ms\n", what, float64(repair.Microseconds())/1000, float64(gap.Microseconds())/1000)
}

// TestChangesUnderTraffic changes everything that may change while one connection between two pods goes on.
func TestChangesUnderTraffic(t *testing.T) {
	c := up(t, topology.Default())
	server := c.pods()
	s := c.stream(node1, "client", server)
	s.alive(t, 5*time.Second)
	var r table
	t.Cleanup(func() {
		t.Logf("what changed, until it was right again, longest silence of the connection:\n%s", r.String())
	})
	subnet := c.Must(node1, "grep SUBNET /run/flannel/subnet.env")

	c.injuries(s, &r)
	c.underlay(s, &r)
	c.backends(s, &r)

	if now := c.Must(node1, "grep SUBNET /run/flannel/subnet.env"); now != subnet {
		t.Errorf("the subnet changed from %s to %s", subnet, now)
	}
	s.close(t)
	for _, h := range []string{node1, node2} {
		c.AsPlanned(h)
	}
	if addr := c.Kubectl("get", "node", node1, "-o", "jsonpath={.status.addresses}"); !strings.Contains(addr, "172.17.42.41") {
		t.Errorf("the node's addresses: %s", addr)
	}
}

// healed is the time within which an injury must be healed. The machine that runs the tests is busy with other things.
const healed = 500 * time.Millisecond

func (c *cluster) injuries(s *stream, r *table) {
	peer := "172.16.78.0"
	for _, x := range []struct{ what, injure, check string }{
		{"table inet weft deleted", "nft delete table inet weft", "nft list chain inet weft services-prerouting | grep to-services4"},
		{"table inet weft flushed", "nft flush table inet weft", "nft list chain inet weft services-prerouting | grep to-services4"},
		{"an element deleted", "nft delete element inet weft cluster-ips4 { 10.254.0.1 }", "nft get element inet weft cluster-ips4 { 10.254.0.1 }"},
		{"flannel.1 deleted", "ip link del flannel.1", "ip route show " + peer + "/24 | grep flannel.1 && bridge fdb show dev flannel.1 | grep dst"},
		{"flannel.1 down", "ip link set flannel.1 down", "ip route show " + peer + "/24 | grep flannel.1"},
		{"flannel.1 with another MTU", "ip link set flannel.1 mtu 1000", "ip link show flannel.1 | grep 'mtu 1450'"},
		{"flannel.1 with another MAC", "ip link set flannel.1 address 02:00:00:00:00:99", "! ip link show flannel.1 | grep 02:00:00:00:00:99"},
		{"route to the peer deleted", "ip route del " + peer + "/24", "ip route show " + peer + "/24 | grep flannel.1"},
		{"neighbour deleted", "ip neigh del " + peer + " dev flannel.1", "ip neigh show dev flannel.1 | grep PERMANENT"},
		{
			"forwarding entry deleted", "bridge fdb del $(bridge fdb show dev flannel.1 | head -1 | cut -d' ' -f1) dev flannel.1 dst 172.17.42.32",
			"bridge fdb show dev flannel.1 | grep dst",
		},
		{"address of flannel.1 deleted", "ip addr del 172.16.28.0/32 dev flannel.1", "ip addr show flannel.1 | grep 172.16.28.0/32"},
		{"ip_forward switched off", "echo 0 > /proc/sys/net/ipv4/ip_forward", "grep 1 /proc/sys/net/ipv4/ip_forward"},
		{"rp_filter of flannel.1 switched", "echo 1 > /proc/sys/net/ipv4/conf/flannel.1/rp_filter", "grep 2 /proc/sys/net/ipv4/conf/flannel.1/rp_filter"},
	} {
		begun := time.Now()
		took := c.repair(node1, x.injure, x.check, 20*time.Second)
		limit := c.still.Allow(healed, begun)
		s.alive(c.T, 10*time.Second)
		r.row(x.what, took, s.gap(begun))
		if took > limit {
			c.T.Errorf("%s: healed after %s", x.what, took)
		}
	}
}

func (c *cluster) underlay(s *stream, r *table) {
	// Back to that of the other node: packets larger than a receiver's MTU are lost without a word.
	for _, mtu := range []int{1400, 1500} {
		begun := time.Now()
		took := c.repair(node1, fmt.Sprintf("ip link set eth0 mtu %d", mtu), fmt.Sprintf(
			"ip link show flannel.1 | grep 'mtu %[1]d' && grep MTU=%[1]d /run/flannel/subnet.env && %[2]s ip link show eth0 | grep 'mtu %[1]d'",
			mtu-50, fmt.Sprintf(netnsOf, "client")), 10*time.Second)
		s.alive(c.T, 10*time.Second)
		r.row(fmt.Sprintf("eth0's MTU %d, pods told", mtu), took, s.gap(begun))
	}

	begun := time.Now()
	c.Must(node1, "ip link set eth0 down; sleep 0.3; ip link set eth0 up; ip route replace default via 172.17.42.1")
	took := labtest.Eventually(c.T, "flannel.1 after eth0 was down", 10*time.Second,
		c.Says(node1, "ip route show 172.16.78.0/24; bridge fdb show dev flannel.1", "flannel.1", "172.17.42.32"))
	s.alive(c.T, 10*time.Second)
	r.row("eth0 down for 300 ms", took, s.gap(begun))

	begun = time.Now()
	c.Must(node1, "ip addr add 172.17.42.41/16 dev eth0; ip addr del 172.17.42.31/16 dev eth0; "+
		"ip addr show eth0 | grep -q 172.17.42.41 || ip addr add 172.17.42.41/16 dev eth0; ip route replace default via 172.17.42.1")
	took = labtest.Eventually(c.T, "node 2 sends to node 1's new address", 30*time.Second,
		c.Says(node2, "bridge fdb show dev flannel.1", "dst 172.17.42.41"))
	s.alive(c.T, 20*time.Second)
	r.row("eth0's address, until the other node uses the new one", took, s.gap(begun))
	took = labtest.Eventually(c.T, "the facts say so", 10*time.Second, func() error {
		if f := c.Kubectl("get", "node", node1, "-o", `jsonpath={.metadata.annotations.weft\.dev/facts}`); !strings.Contains(f, "172.17.42.41") {
			return fmt.Errorf("facts: %s", f)
		}
		return nil
	})
	r.row("... and the node's facts say so", took, 0)
}

// apply puts a network configuration in force.
func (c *cluster) apply(backend string) {
	c.T.Helper()
	conf := `{"Network": "172.16.0.0/12", "SubnetLen": 24, "Backend": ` + backend + `}`
	if err := c.WriteFile(c.T.Context(), master, "/root/net.json", []byte(conf)); err != nil {
		c.T.Fatal(err)
	}
	c.Must(master, "weft network apply -f /root/net.json --wait=60s --etcd-endpoints=http://172.17.42.30:2379")
}

func (c *cluster) backends(s *stream, r *table) {
	for _, x := range []struct{ what, backend, look1, look2 string }{
		{"backend vxlan to host-gw", `{"Type": "host-gw"}`, "172.16.78.0/24 via 172.17.42.32 dev eth0", "172.16.28.0/24 via 172.17.42.41 dev eth0"},
		{"backend host-gw to vxlan", `{"Type": "vxlan"}`, "172.16.78.0/24 via 172.16.78.0 dev flannel.1", "172.16.28.0/24 via 172.16.28.0 dev flannel.1"},
		{"VNI 1 to 2", `{"Type": "vxlan", "VNI": 2}`, "172.16.78.0/24 via 172.16.78.0 dev flannel.2", "172.16.28.0/24 via 172.16.28.0 dev flannel.2"},
		{"backend vxlan to udp", `{"Type": "udp"}`, "172.16.0.0/12 dev flannel0", "172.16.0.0/12 dev flannel0"},
		{"backend udp to wireguard", `{"Type": "wireguard"}`, "172.16.78.0/24 dev flannel-wg", "172.16.28.0/24 dev flannel-wg"},
		{"backend wireguard to vxlan", `{"Type": "vxlan", "VNI": 2}`, "172.16.78.0/24 via 172.16.78.0 dev flannel.2", "172.16.28.0/24 via 172.16.28.0 dev flannel.2"},
		{"port 8472 to 4789", `{"Type": "vxlan", "VNI": 2, "Port": 4789}`, "dstport 4789", "dstport 4789"},
	} {
		begun := time.Now()
		c.apply(x.backend)
		for h, want := range map[string]string{node1: x.look1, node2: x.look2} {
			labtest.Eventually(c.T, x.what+" on "+h, 10*time.Second, c.routes(h, "ip route; ip -d link show type vxlan", want))
		}
		took := time.Since(begun)
		s.alive(c.T, 10*time.Second)
		r.row(x.what, took, s.gap(begun))
	}
}

// TestIPTablesHeals is the same for the rules of mode userspace.
func TestIPTablesHeals(t *testing.T) {
	top := topology.Default()
	top.Cluster.ProxyMode = "userspace"
	c := up(t, top)
	var r table
	t.Cleanup(func() { t.Logf("what was changed, until it was right again:\n%s", r.String()) })
	if v := c.Must(node1, "iptables --version"); !strings.Contains(v, "nf_tables") {
		t.Skipf("%s tells of no changes: only the full check finds them", v)
	}
	vip := "iptables -t nat -S KUBE-PORTALS-CONTAINER | grep 10.254.0.1/32"
	for _, x := range []struct{ what, injure, check string }{
		{"chain KUBE-PORTALS-CONTAINER flushed", "iptables -t nat -F KUBE-PORTALS-CONTAINER", vip},
		{"table nat flushed", "iptables -t nat -F", vip + " && iptables -t nat -S PREROUTING | grep KUBE-PORTALS-CONTAINER"},
		{
			"jump deleted", "iptables -t nat -D PREROUTING 1",
			"iptables -t nat -S PREROUTING | grep KUBE-PORTALS-CONTAINER",
		},
	} {
		begun := time.Now()
		took := c.repair(node1, x.injure, x.check, 20*time.Second)
		r.row(x.what, took, 0)
		if took > c.still.Allow(healed, begun) {
			t.Errorf("%s: healed after %s", x.what, took)
		}
	}
	// Somebody who takes our rules away again and again is noticed, slowed down and reported once.
	c.Must(node1, "for i in $(seq 160); do iptables -t nat -F KUBE-PORTALS-CONTAINER; sleep 0.02; done")
	took := labtest.Eventually(t, "the rules are back after the fight", 15*time.Second, c.Says(node1, vip, "10.254.0.1"))
	r.row("after a fight", took, 0)
	text, err := os.ReadFile(c.LogFile(node1, lab.Agent))
	if err != nil {
		t.Fatal(err)
	}
	log := string(text)
	if n := strings.Count(log, " keeps changing iptables chain nat KUBE-PORTALS-CONTAINER"); n != 1 {
		t.Errorf("the fight was reported %d times", n)
	}
	if n := strings.Count(log, "what=iptables"); n > 60 {
		t.Errorf("%d repairs: the fight was not slowed down", n)
	}
}
