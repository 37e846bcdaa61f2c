package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/lab"
	"weft/internal/lease"
)

// flannel is the name of the program on a host that is flannel's.
const flannel = "flanneld"

const subnetEnv = "/run/flannel/subnet.env"

// network is one pod network of flannel and weft hosts.
type network struct {
	world
	name  string
	conf  string // net-conf.json
	late  bool   // flannel comes after weft
	lossy bool   // packets are lost when one program follows the other
	kube  bool   // leases are podCIDRs and annotations, else keys of etcd
	v4    bool
	v6    bool

	flannelFlags []string
	weftFlags    []string
	cidrs        int // podCIDRs given so far
}

func (n *network) prefix() string { return "/" + n.name }

// make puts the network's configuration where its hosts look for it.
func (n *network) make() {
	n.t.Helper()
	c, _, err := lease.ParseConfig([]byte(n.conf))
	if err != nil {
		n.t.Fatal(err)
	}
	n.v4, n.v6 = c.EnableIPv4, c.EnableIPv6
	if !n.kube {
		n.etcdctl("put", n.prefix()+"/config", n.conf)
	}
}

// join makes a host one of the network's: with Kubernetes it is a node with podCIDRs.
func (n *network) join(h *host) {
	n.t.Helper()
	if !n.kube {
		return
	}
	if err := n.WriteFile(n.t.Context(), h.name, netConfPath, []byte(n.conf)); err != nil {
		n.t.Fatal(err)
	}
	c, _, err := lease.ParseConfig([]byte(n.conf))
	if err != nil {
		n.t.Fatal(err)
	}
	n.cidrs++
	var cidrs []string
	if n.v4 {
		b := c.V4.Network.Addr().As4()
		b[2] = byte(n.cidrs)
		cidrs = append(cidrs, netip.PrefixFrom(netip.AddrFrom4(b), 24).String())
	}
	if n.v6 {
		b := c.V6.Network.Addr().As16()
		b[7] = byte(n.cidrs)
		cidrs = append(cidrs, netip.PrefixFrom(netip.AddrFrom16(b), 64).String())
	}
	node := map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": h.name},
		"spec": map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs},
	}
	text, err := json.Marshal(node)
	if err != nil {
		n.t.Fatal(err)
	}
	file := "/root/" + h.name + ".json"
	if err := n.WriteFile(n.t.Context(), master, file, text); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("apply", "-f", file)
	n.t.Cleanup(func() {
		if _, err := n.Kubectl(context.Background(), "delete", "node", h.name, "--ignore-not-found"); err != nil {
			n.t.Log(err)
		}
	})
}

const (
	netConfPath = "/etc/kube-flannel/net-conf.json"
	kubeconfig  = "/root/.kube/config"
)

// flannel starts flanneld on the host as a flannel host has it and waits for its subnet.
func (n *network) flannel(h *host, more ...string) {
	n.t.Helper()
	argv := []string{"flanneld", "--iface=eth0", "--ip-masq", "--v=2"}
	if n.kube {
		argv = append(argv, "--kube-subnet-mgr", "--kubeconfig-file="+kubeconfig, "--net-config-path="+netConfPath)
	} else {
		argv = append(argv, "--etcd-endpoints="+etcd, "--etcd-prefix="+n.prefix())
	}
	argv = append(append(argv, n.flannelFlags...), more...)
	h.run(flannel, append([]string{"env", "NODE_NAME=" + h.name}, argv...)...)
	n.ready(h)
}

// weft starts the agent on the host and waits for its subnet.
func (n *network) weft(h *host, more ...string) {
	n.t.Helper()
	argv := []string{"weft", "agent", "-v", "--node-name=" + h.name, "--iface=eth0", "--attach=bridge", "--bridge=cni0", "--pod-runtime=none"}
	if n.kube {
		argv = append(argv, "--kube-subnet-mgr", "--kubeconfig="+kubeconfig, "--net-config-path="+netConfPath)
	} else {
		argv = append(argv, "--kubeconfig=", "--etcd-endpoints="+etcd, "--etcd-prefix="+n.prefix())
	}
	h.run(lab.Agent, append(append(argv, n.weftFlags...), more...)...)
	n.ready(h)
}

// ready waits for subnet.env and reads it.
func (n *network) ready(h *host) {
	n.t.Helper()
	n.eventually(h.name+" has a subnet", patient, func() error {
		text, err := n.ReadFile(n.t.Context(), h.name, subnetEnv)
		if err != nil {
			return err
		}
		e, err := lease.ParseSubnetEnv(text)
		if err != nil {
			return err
		}
		h.subnet, h.v6 = e.Subnet, e.IPv6Subnet
		if n.v4 != h.subnet.IsValid() || n.v6 != h.v6.IsValid() {
			return fmt.Errorf("subnets %s and %s in:\n%s", h.subnet, h.v6, text)
		}
		return nil
	})
}

// withPod attaches a pod that answers, by plain iproute2 as flannel's CNI plugin does it: bridge cni0 with the subnet's first address, the
// MTU of subnet.env.
func (n *network) withPod(h *host) {
	n.t.Helper()
	script := `set -e
. /run/flannel/subnet.env
ip link show cni0 >/dev/null 2>&1 || ip link add cni0 type bridge
[ -z "$FLANNEL_SUBNET" ] || ip addr replace $FLANNEL_SUBNET dev cni0
[ -z "$FLANNEL_IPV6_SUBNET" ] || ip addr replace $FLANNEL_IPV6_SUBNET dev cni0 nodad
ip link set cni0 up
ip netns add pod
ip link add veth-pod mtu $FLANNEL_MTU type veth peer name eth0 mtu $FLANNEL_MTU netns pod
ip link set veth-pod master cni0 up
ip link set cni0 mtu $FLANNEL_MTU
ip netns exec pod sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0
ip -n pod link set lo up
ip -n pod link set eth0 up
`
	for _, s := range []struct {
		subnet netip.Prefix
		pod    *netip.Addr
		opt    string
	}{{h.subnet, &h.pod, ""}, {h.v6, &h.pod6, " nodad"}} {
		if s.subnet.IsValid() {
			gw := s.subnet.Addr().Next()
			*s.pod = gw.Next().Next()
			script += fmt.Sprintf("ip -n pod addr add %s dev eth0%s\nip -n pod route add default via %s dev eth0\n",
				netip.PrefixFrom(*s.pod, s.subnet.Bits()), s.opt, gw)
		}
	}
	if err := n.WriteFile(n.t.Context(), h.name, "/root/pod.sh", []byte(script)); err != nil {
		n.t.Fatal(err)
	}
	h.must("sh /root/pod.sh")
	h.enter = "ip netns exec pod "
	h.run("serve-pod", "ip", "netns", "exec", "pod", probeName, "serve")
	h.run("serve-host", probeName, "serve")
}

// talk exchanges bytes with an address, from the pod or from the host itself, and says how the other side saw it.
func (h *host) talk(fromPod bool, to netip.Addr, bytes int) (talk, error) {
	var t talk
	in := ""
	if fromPod {
		in = h.enter
	}
	out, err := h.sh("%s%s talk %s %d", in, probeName, to, bytes)
	if err != nil {
		return t, fmt.Errorf("%s, pod %t, to %s: %w", h.name, fromPod, to, err)
	}
	return t, json.Unmarshal([]byte(out), &t)
}

// both checks the traffic between two hosts in both directions and every family: bytes over TCP, a datagram, and with what source address.
func (n *network) both(a, b *host) {
	n.t.Helper()
	for _, x := range []struct{ from, to *host }{{a, b}, {b, a}} {
		if n.v4 {
			n.check(x.from, x.from.pod, x.to.pod, x.from.hostSource(n, false))
		}
		if n.v6 {
			n.check(x.from, x.from.pod6, x.to.pod6, x.from.hostSource(n, true))
		}
	}
}

// bulk is enough that full packets are under way in both directions.
const bulk = 3 << 20

func (n *network) check(h *host, source, to netip.Addr, hostSource string) {
	n.t.Helper()
	var got talk
	n.eventually(fmt.Sprintf("traffic from a pod of %s", h.name), patient, func() (err error) {
		got, err = h.talk(true, to, 1000)
		return err
	})
	got, err := h.talk(true, to, bulk)
	if err != nil {
		n.t.Errorf("bulk: %v", err)
	}
	if got.TCP != source.String() || got.UDP != source.String() {
		n.t.Errorf("%s to %s: seen as %+v, want the pod's address %s", h.name, to, got, source)
	}
	got, err = h.talk(false, to, bulk)
	if err != nil {
		n.t.Errorf("from the host: %v", err)
	}
	if got.TCP != hostSource || got.UDP != hostSource {
		n.t.Errorf("%s itself to %s: seen as %+v, want %s", h.name, to, got, hostSource)
	}
}

// hostSource is how pods elsewhere see what the host itself sends: by the address of the tunnel's device, which is the subnet's own, or
// where there is no tunnel by the host's.
func (h *host) hostSource(n *network, v6 bool) string {
	direct := strings.Contains(n.conf, "host-gw") || strings.Contains(n.conf, `"DirectRouting": true`)
	switch {
	case direct && v6:
		return h.addr6.String()
	case direct:
		return h.addr.String()
	case v6:
		return h.v6.Addr().String()
	}
	return h.subnet.Addr().String()
}
