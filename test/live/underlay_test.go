package live

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/lab/topology"
	"weft/test/labtest"
)

const prefix = "flannel.alpha.coreos.com/"

// TestAnnotatedAddress: with the leases in the Kubernetes API a node's annotations choose what it publishes, while the agent runs. And what
// attaches pods bears our mark and needs no policy rule.
func TestAnnotatedAddress(t *testing.T) {
	top := topology.Default()
	top.Cluster.LeaseStore = "kube"
	c := up(t, top)
	server := c.pods()
	s := c.stream(node1, "client", server)
	s.alive(t, 5*time.Second)
	c.attached()

	published := func(want string) func() error {
		return c.Says(master, "kubectl get node "+node1+` -o jsonpath='{.metadata.annotations.flannel\.alpha\.coreos\.com/public-ip}.'`, want+".")
	}
	labtest.Eventually(t, "the interface's address is published", 5*time.Second, published("172.17.42.31"))
	c.Must(node1, "ip addr add 172.17.42.91/16 dev eth0")
	for _, x := range []struct{ what, annotate, want, local string }{
		{"node-public-ip, a second address of the interface", "node-public-ip=172.17.42.91", "172.17.42.91", "local 172.17.42.91"},
		{"one that can't be read counts for nothing", "node-public-ip=eth0", "172.17.42.31", "local 172.17.42.31"},
		{"node-public-ip again", "node-public-ip=172.17.42.91", "172.17.42.91", "local 172.17.42.91"},
		{"public-ip-overwrite counts more", "public-ip-overwrite=172.17.42.31", "172.17.42.31", "local 172.17.42.91"},
		{"without it", "public-ip-overwrite-", "172.17.42.91", "local 172.17.42.91"},
		{"without any", "node-public-ip-", "172.17.42.31", "local 172.17.42.31"},
	} {
		begun := time.Now()
		c.Kubectl("annotate", "node", node1, prefix+x.annotate, "--overwrite")
		took := labtest.Eventually(t, x.what, 10*time.Second, published(x.want))
		labtest.Eventually(t, x.what+": the tunnel starts there", 10*time.Second, c.Says(node1, "ip -d link show flannel.1", x.local+" "))
		labtest.Eventually(t, x.what+": the other node sends there", 10*time.Second, c.Says(node2, "bridge fdb show dev flannel.1", "dst "+x.want+" "))
		s.alive(t, 10*time.Second)
		t.Logf("%s: published after %s, connection silent for at most %s", x.what, took.Round(10*time.Millisecond), s.gap(begun).Round(10*time.Millisecond))
	}
	c.AsPlanned(node1)
}

// TestInterfaceComesLater: an agent waits for its interface, and one that runs follows the order of its flags.
func TestInterfaceComesLater(t *testing.T) {
	c := pathLab(t)
	c.Must("h1", "etcd --data-dir /var/lib/etcd --listen-client-urls "+narrowEtcd+" --advertise-client-urls "+narrowEtcd+
		" --listen-peer-urls http://127.0.0.1:2380 >/var/log/etcd.log 2>&1 </dev/null &")
	c.Must("h1", `echo '{"Network": "172.16.0.0/12", "Backend": {"Type": "vxlan"}}' > /root/net.json`)
	labtest.Eventually(t, "etcd", 20*time.Second, c.Says("h1", "weft network apply -f /root/net.json --etcd-endpoints="+narrowEtcd+" && echo done", "done"))

	c.Must("h2", `sh -c 'echo $$ > /run/agent.pid; exec weft agent --kubeconfig= --etcd-endpoints=`+narrowEtcd+` --pod-runtime=none \
  --iface=up0 --iface-regex="^10[.]77[.]" --public-ip=203.0.113.32' >/var/log/agent.log 2>&1 </dev/null &`)
	labtest.Eventually(t, "the agent says what it waits for", 5*time.Second, c.Says("h2", "cat /var/log/agent.log", "waiting for the underlay",
		"--iface=up0: there is no such interface; --iface-regex=^10[.]77[.]: no interface's name or address matches (interfaces here: lo, eth0)"))
	for _, x := range []struct{ what, change, want string }{
		{"an address that the pattern matches", "ip addr add 10.77.0.1/24 dev eth0", "local 10.77.0.1 dev eth0"},
		{"a link of the name", "ip link add up0 type veth peer name up1; ip link set up1 up; ip link set up0 up; ip addr add 10.78.0.1/24 dev up0", "local 10.78.0.1 dev up0"},
		{"that link down", "ip link set up0 down", "local 10.77.0.1 dev eth0"},
		{"the link up again", "ip link set up0 up", "local 10.78.0.1 dev up0"},
		{"another link gets the name", "ip link set up0 down name old0; ip link set eth0 down name up0; ip link set up0 up; ip addr del 10.77.0.1/24 dev up0", "local 172.17.42.32 dev up0"},
	} {
		c.Must("h2", x.change)
		labtest.Eventually(t, x.what, 10*time.Second, c.Says("h2", "ip -d link show flannel.1", x.want))
	}
	labtest.Eventually(t, "the public address", 5*time.Second, c.Says("h1", "weft network show --etcd-endpoints="+narrowEtcd, "203.0.113.32"))
	c.Must("h2", "ip link set up0 down name gone0")
	labtest.Eventually(t, "said that it is gone", 5*time.Second, c.Says("h2", "cat /var/log/agent.log", "the underlay is gone: everything stays as it is"))
	c.Must("h2", "ip link set gone0 name up0; ip link set up0 up")
	labtest.Eventually(t, "said that it is back", 10*time.Second, c.Says("h2", "cat /var/log/agent.log; weft status", "the underlay is back", ": converged"))
	// An address that goes and comes again, as when DHCP asks anew, costs nothing: the device stays, though the interface still has one of the
	// other family.
	const index = "ip -o link show flannel.1 | cut -d: -f1"
	device := c.Must("h2", index)
	c.Must("h2", "ip addr flush dev up0 scope global; ip addr add fd17::32/64 dev up0 nodad")
	labtest.Eventually(t, "said that it lacks an address", 5*time.Second, c.Says("h2", "weft status",
		"warning   the underlay is gone", "up0 has no IPv4 address"))
	c.Must("h2", "ip addr add 172.17.42.32/16 dev up0")
	labtest.Eventually(t, "said that it has it again", 10*time.Second, c.Says("h2", "weft status | grep -c 'underlay is gone'; weft status", "0\n", ": converged"))
	if now := c.Must("h2", index); now != device {
		t.Errorf("flannel.1 was made anew: interface %s, then %s", device, now)
	}
	c.Must("h1", `echo '{"Network": "172.16.0.0/12", "Backend": {"Type": "vxlan", "MTU": 9000}}' > /root/wide.json`)
	c.Must("h1", "weft network apply -f /root/wide.json --wait=60s --etcd-endpoints="+narrowEtcd)
	labtest.Eventually(t, "an MTU that the interface can't carry", 5*time.Second, c.Says("h2", "weft status; cat /run/flannel/subnet.env",
		": converged", "Backend.MTU 9000 is more than up0 carries: 1600 counts", "FLANNEL_MTU=1550"))
	c.Must("h1", `echo '{"Network": "172.16.0.0/12", "Backend": {"Type": "l2"}}' > /root/l2.json`)
	c.Must("h1", "weft network apply -f /root/l2.json --etcd-endpoints="+narrowEtcd)
	labtest.Eventually(t, "a configuration that this host can't take up", 5*time.Second, c.Says("h2", "weft status",
		"warning   the network's configuration is not taken up", `"l2" needs the Kubernetes API`))
	c.Must("h1", "weft network apply -f /root/net.json --etcd-endpoints="+narrowEtcd)
	labtest.Eventually(t, "one that it can", 5*time.Second, c.Says("h2", "weft status | grep -c 'not taken up'; weft status", "0\n", ": converged"))
	if n := c.Must("h2", "grep -c underlay /var/log/agent.log"); len(n) > 2 {
		t.Errorf("%s lines of the log are about it", n)
	}
}

// attached looks at what attaches the client's pod on node 1.
func (c *cluster) attached() {
	c.T.Helper()
	inClient := fmt.Sprintf(netnsOf, "client")
	pod := c.Kubectl("get", "pod", "client", "-o", "jsonpath={.status.podIP}")
	if rules := c.Must(node1, "ip rule | wc -l; ip -6 rule | wc -l"); rules != "3\n2" {
		c.T.Errorf("policy rules beside the kernel's own: %s", c.Must(node1, "ip rule; ip -6 rule"))
	}
	for command, want := range map[string]string{
		"ip neigh show " + pod:              "PERMANENT",
		"ip route show " + pod + "/32":      "proto 119",
		"ip route show type unreachable":    "proto 119",
		"ip -d link show type veth":         "alias weft:pod:",
		"ip neigh show dev flannel.1":       "PERMANENT",
		inClient + "ip neigh show dev eth0": "PERMANENT",
		inClient + "ip route show default":  "proto 119",
	} {
		if out := c.Must(node1, command); !strings.Contains(out, want) {
			c.T.Errorf("%s: no %q in %q", command, want, out)
		}
	}
	if out := c.Must(node1, "ip neigh show nud reachable; ip neigh show nud stale; "+inClient+"ip neigh show nud reachable"); strings.Contains(out, pod) ||
		strings.Contains(out, "dev veth") {
		c.T.Errorf("neighbours that were learned: %s", out)
	}
}
