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

// Hosts of TestNarrowPath: h1 and h2 reach each other through the routers h3 and h4, h5 is beside h1.
const narrowEtcd = "http://172.17.42.31:2379"

// pathLab is a lab of hosts whose agents the test starts itself.
func pathLab(t *testing.T) *cluster {
	t.Helper()
	top := topology.HostsOnly(5)
	top.Underlay.MTU = 1600 // room for the routers' tunnel; the hosts have 1500
	c := labtest.Up(t, "paths", top, lab.Options{HostsOnly: true})
	c.Nodes, c.Show = []string{"h1", "h2"}, "tail -n 20 /var/log/agent.log; ip route; ip -6 route; weft status"
	return &cluster{c, labtest.NewStill(t)}
}

// hop puts two routers with a link of the MTU between h1 and h2. They tell nobody what is too large, and fragment nothing.
func (c *cluster) hop() {
	c.T.Helper()
	for i := range 5 {
		// Without offloads every packet is as large as it is on a wire, so that the routers can tell.
		c.Must(fmt.Sprintf("h%d", i+1), fmt.Sprintf(`ip link set eth0 mtu 1500 gso_max_segs 1; ip -6 addr add fd17::%d/64 dev eth0 nodad
for f in accept_redirects send_redirects; do for d in all eth0; do echo 0 > /proc/sys/net/ipv4/conf/$d/$f; done; done
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_redirects`, i+31))
	}
	c.Must("h1", "ip route add 172.17.42.32 via 172.17.42.33; ip -6 route add fd17::32 via fd17::33")
	c.Must("h2", "ip route add 172.17.42.31 via 172.17.42.34; ip -6 route add fd17::31 via fd17::34")
	// A network of its own between the routers: a VXLAN tunnel of theirs, whose MTU is what is set.
	for h, x := range map[string][3]string{"h3": {"172.17.42.33", "172.17.42.34", "32"}, "h4": {"172.17.42.34", "172.17.42.33", "31"}} {
		n := x[0][len(x[0])-1:]
		other := x[1][len(x[1])-1:]
		c.Must(h, `ip link set eth0 mtu 1600
ip link add m0 type vxlan id 99 local `+x[0]+` remote `+x[1]+` dstport 4999 dev eth0
ip link set m0 mtu 1500 up; ip addr add 10.9.0.`+n+`/24 dev m0; ip -6 addr add fd09::`+n+`/64 dev m0 nodad
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip route add 172.17.42.`+x[2]+` via 10.9.0.`+other+`; ip -6 route add fd17::`+x[2]+` via fd09::`+other+`
nft -f - <<E
table inet quiet {
	chain out {
		type filter hook output priority 0;
		icmp type { destination-unreachable, redirect } drop
		icmpv6 type { packet-too-big, nd-redirect } drop
	}
	chain forward { type filter hook forward priority 0; }
}
E`)
	}
}

// narrow sets the MTU of the link between the routers.
func (c *cluster) narrow(mtu int) {
	c.T.Helper()
	for _, h := range []string{"h3", "h4"} {
		n := map[string]string{"h3": "3", "h4": "4"}[h]
		c.Must(h, fmt.Sprintf(`ip link set m0 mtu %d; ip -6 addr replace fd09::%s/64 dev m0 nodad
nft flush chain inet quiet forward; nft add rule inet quiet forward oifname m0 meta length gt %d drop`, mtu, n, mtu))
	}
	c.Must("h3", "ip -6 route replace fd17::32 via fd09::4")
	c.Must("h4", "ip -6 route replace fd17::31 via fd09::3")
}

func (c *cluster) startAgent(host string, every time.Duration) {
	c.T.Helper()
	c.Must(host, fmt.Sprintf(`sh -c 'echo $$ > /run/agent.pid; exec weft agent --kubeconfig= --etcd-endpoints=%s --iface=eth0 --attach=bridge \
  --pod-runtime=none --mtu-probe=%s' >>/var/log/agent.log 2>&1 </dev/null &`, narrowEtcd, every))
	labtest.Eventually(c.T, "agent on "+host, 20*time.Second, c.Says(host, "weft status", ": converged"))
}

func (c *cluster) stopAgent(host string) {
	c.T.Helper()
	c.Must(host, "kill $(cat /run/agent.pid); while [ -e /proc/$(cat /run/agent.pid) ]; do sleep 0.02; done")
}

// pod makes a network namespace on the bridge with a web server, and returns its addresses as they stand in URLs.
func (c *cluster) pod(host string) [2]string {
	c.T.Helper()
	out := c.Must(host, `. /run/flannel/subnet.env
four=${FLANNEL_SUBNET%.*}; six=${FLANNEL_IPV6_SUBNET%::*}
ip netns add pod; ip link add name vpod mtu $FLANNEL_MTU type veth peer name eth0 mtu $FLANNEL_MTU netns pod; ip link set vpod master cni0 up
ip -n pod addr add $four.9/24 dev eth0; ip -n pod addr add $six::9/64 dev eth0 nodad; ip -n pod link set eth0 up; ip -n pod link set lo up
ip -n pod route add default via $four.1; ip -n pod -6 route add default via $six::1
mkdir -p /tmp/www; head -c 3000000 /dev/urandom > /tmp/www/bulk; echo ok > /tmp/www/small
ip netns exec pod busybox httpd -p 80 -h /tmp/www
echo $four.9 [$six::9]`)
	four, six, _ := strings.Cut(out, " ")
	return [2]string{four, six}
}

// fetch is a check that a pod gets a page of another, all of it.
func (c *cluster) fetch(host, server, page, size string) func() error {
	return c.Says(host, "ip netns exec pod curl -s --connect-timeout 2 --max-time 4 -o /dev/null -w 'got %{size_download}.' http://"+server+"/"+page+" || true",
		"got "+size+".")
}

// TestNarrowPath: between two hosts lies a hop that is narrower than their interfaces and says nothing about it. What is small arrives, and
// what is large only when the agents have found out; other peers' paths stay as they are.
func TestNarrowPath(t *testing.T) {
	c := pathLab(t)
	c.hop()
	c.narrow(1400)
	c.Must("h1", "etcd --data-dir /var/lib/etcd --listen-client-urls "+narrowEtcd+" --advertise-client-urls "+narrowEtcd+
		" --listen-peer-urls http://127.0.0.1:2380 >/var/log/etcd.log 2>&1 </dev/null &")
	if err := c.WriteFile(t.Context(), "h1", "/root/net.json", []byte(`{"Network": "172.16.0.0/12", "EnableIPv6": true,
		"IPv6Network": "fd10::/48", "Backend": {"Type": "vxlan"}}`)); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "etcd", 20*time.Second, c.Says("h1", "weft network apply -f /root/net.json --etcd-endpoints="+narrowEtcd+" && echo done", "done"))
	nodes := []string{"h1", "h2", "h5"}
	pods := map[string][2]string{}
	for _, h := range nodes {
		c.startAgent(h, 0)
		pods[h] = c.pod(h)
	}
	families := []string{"IPv4", "IPv6"}
	for i, family := range families {
		for _, way := range [][2]string{{"h1", "h2"}, {"h2", "h1"}, {"h1", "h5"}} {
			labtest.Eventually(t, family+" small "+way[0]+" from "+way[1], 10*time.Second, c.fetch(way[0], pods[way[1]][i], "small", "3"))
		}
		// This is what the probe is for.
		if err := c.fetch("h1", pods["h2"][i], "bulk", "3000000")(); err == nil {
			t.Errorf("%s: bulk passes a hop of 1400 without the probe: the hop is none", family)
		}
		labtest.Eventually(t, family+" bulk to h5", 10*time.Second, c.fetch("h1", pods["h5"][i], "bulk", "3000000"))
	}

	for _, h := range nodes {
		c.stopAgent(h)
		c.startAgent(h, time.Second)
	}
	c.bulk("a hop of 1400", pods, "mtu 1330")
	c.narrow(1360)
	c.bulk("a hop of 1360", pods, "mtu 1290")
	labtest.Eventually(t, "status and metrics", 10*time.Second, c.Says("h1", "weft status; curl -s 127.0.0.1:10249/metrics", "172.17.42.32 MTU 1360",
		`weft_path_mtu_bytes{address="fd17::32"} 1360`, `weft_path_mtu_bytes{address="172.17.42.35"} 1500`))
	// An agent that starts again knows: nothing changes.
	c.stopAgent("h1")
	c.startAgent("h1", time.Second)
	if out := c.Must("h1", "weft status"); !strings.Contains(out, "0 in the first step") {
		t.Errorf("after a restart:\n%s", out)
	}
	c.narrow(1500)
	labtest.Eventually(t, "the routes' MTU is the device's again", 15*time.Second, func() error {
		if out := c.Must("h1", "ip route; ip -6 route"); strings.Contains(out, "mtu") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	c.bulk("a hop of 1500", pods, "")
}

// bulk waits until all routes are as wanted and large answers arrive both ways in both families.
func (c *cluster) bulk(what string, pods map[string][2]string, v6 string) {
	c.T.Helper()
	begun := time.Now()
	for i, family := range []string{"IPv4", "IPv6"} {
		for _, way := range [][2]string{{"h1", "h2"}, {"h2", "h1"}} {
			labtest.Eventually(c.T, fmt.Sprintf("%s: %s bulk %s from %s", what, family, way[0], way[1]), 20*time.Second,
				c.fetch(way[0], pods[way[1]][i], "bulk", "3000000"))
		}
	}
	c.T.Logf("%s: bulk passes both ways in both families after %s", what, time.Since(begun).Round(100*time.Millisecond))
	for _, h := range []string{"h1", "h2"} {
		labtest.Eventually(c.T, what+": the route's MTU on "+h, 15*time.Second, func() error { // TCP may find its way before the probe does
			routes := c.Must(h, "ip -6 route show proto 119 | grep flannel-v6")
			if v6 != "" && strings.Count(routes, v6) != 1 || v6 == "" && strings.Contains(routes, "mtu") {
				return fmt.Errorf("want exactly one route with %q:\n%s", v6, routes)
			}
			return nil
		})
		if mtu := c.Must(h, "grep MTU /run/flannel/subnet.env"); mtu != "FLANNEL_MTU=1430" {
			c.T.Errorf("%s: %s", h, mtu)
		}
	}
}
