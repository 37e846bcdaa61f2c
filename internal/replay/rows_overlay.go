package replay

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

func rowHosts(r *run) error {
	for _, host := range []string{master, node1, node2} {
		ip := addressOf[host]
		out, err := r.quiet(host, "ip -br -4 addr show dev eth0")
		if err != nil {
			return err
		}
		r.check(strings.Contains(out, ip+"/16"), "%s has %s/16 on eth0", host, ip)
	}
	r.sh(node1, "ip -4 addr show dev eth0")
	out := r.sh(node1, "cat /etc/hosts")
	r.has(out, "172.17.42.30", master, node2)
	out = r.sh(node1, "busybox ping -c 1 -W 2 kube-node2")
	r.has(out, " 0% packet loss")
	return nil
}

func rowAPIServer(r *run) error {
	out := r.sh(master, "tr '\\0' ' ' < /proc/$(pidof weft-server)/cmdline; echo")
	for _, flag := range []string{"--service-cluster-ip-range=10.254.0.0/16", "--secure-port=", "--allow-privileged=true", "--admission-control="} {
		r.check(strings.Contains(out, flag), "started with the article's flag %s", flag)
	}
	out = r.kubectl("get", "--raw", "/readyz")
	r.check(strings.TrimSpace(out) == "ok", "ready")
	out, err := r.lab.Kubectl(r.ctx, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return err
	}
	server := strings.TrimSpace(out)
	r.check(strings.HasPrefix(server, "https://"), "TLS only: %s", server)
	status := "curl -sk -o /dev/null -w '%{http_code}\\n'"
	out = r.sh(master, fmt.Sprintf("%s -H 'Authorization: Bearer wrong' %s/api/v1/nodes", status, server))
	r.check(strings.TrimSpace(out) == "401", "a wrong token gets 401")
	out = r.sh(master, fmt.Sprintf("%s %s/api/v1/nodes", status, server))
	code := strings.TrimSpace(out)
	r.check(code == "401" || code == "403", "anonymous is refused")
	out = r.kubectl("get", "nodes", "-o", "wide")
	for _, n := range []string{node1, node2} {
		r.check(lineWith(out, n, " Ready ") != "", "%s is Ready", n)
	}
	return nil
}

func rowEtcd(r *run) error {
	out := r.sh(node1, "ETCDCTL_API=3 etcdctl --endpoints=http://kube-master:2379 get --prefix /coreos.com/network")
	r.has(out, "/coreos.com/network/config", `"172.16.0.0/12"`)
	for _, n := range []string{node1, node2} {
		r.check(strings.Contains(out, "/coreos.com/network/subnets/"+subnetOf[n]+".0-24"), "lease of %s", n)
	}
	return nil
}

func rowSubnets(r *run) error {
	for _, n := range []string{node1, node2} {
		out := r.sh(n, "cat /run/flannel/subnet.env")
		r.has(out, "FLANNEL_NETWORK=172.16.0.0/12", "FLANNEL_SUBNET="+subnetOf[n]+".1/24", "FLANNEL_MTU=1450")
		r.facts.previous[n] = out
	}
	r.say("the agent of node1 is stopped and started: the subnet stays")
	if err := r.lab.Restart(r.ctx, node1, "agent"); err != nil {
		return err
	}
	out, err := r.quiet(node1, "cat /run/flannel/subnet.env")
	if err != nil {
		return err
	}
	r.check(out == r.facts.previous[node1], "kube-node1 holds %s.0/24 after a restart", subnetOf[node1])
	return nil
}

func rowDevice(r *run) error {
	for _, n := range []string{node1, node2} {
		out := r.sh(n, "ip -d link show flannel.1")
		r.has(out, "mtu 1450", "vxlan id 1 ", "local "+addressOf[n], "dev eth0", "dstport 8472", "nolearning")
		out = r.sh(n, "ip -4 addr show dev flannel.1")
		r.has(out, "inet "+subnetOf[n]+".0/32")
	}
	out := r.sh(node1, "ip route show")
	r.has(out, "172.16.78.0/24 ", "via 172.16.78.0 dev flannel.1", "172.16.28.0/24 dev docker0", "src 172.16.28.1")
	r.say("one route for each lease, not the article's single 172.16.0.0/12: docs/adr/0005-one-route-per-lease.md")
	r.has(r.sh(node1, "ip neigh show dev flannel.1"), "172.16.78.0 lladdr", "PERMANENT")
	r.has(r.sh(node1, "bridge fdb show dev flannel.1"), "dst 172.17.42.32", "permanent")
	return nil
}

func rowBridge(r *run) error {
	out := r.sh(node1, "ip addr show docker0")
	r.has(out, "mtu 1450", "link/ether 02:42:", "inet 172.16.28.1/24")
	out = r.kubectl("exec", "sshd-2", "--", "ip", "addr", "show", "eth0")
	ip, err := netip.ParseAddr(r.facts.sshd.ip)
	if err != nil {
		return fmt.Errorf("address of sshd-2: %w", err)
	}
	r.check(netip.MustParsePrefix("172.16.28.0/24").Contains(ip), "sshd-2 has an address of its node's subnet: %s", ip)
	b := ip.As4()
	r.has(out, "mtu 1450", ip.String()+"/24", fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]))
	return nil
}

func rowNodeToPod(r *run) error {
	remote := r.facts.nginx[node2]
	out := r.sh(node1, fmt.Sprintf("curl -s -m 5 http://%s/", remote.ip))
	r.has(out, remote.name, "client_address=172.16.28.0")
	r.say("the node's own source is flannel.1's address: the route to %s.0/24 leaves by it", subnetOf[node2])
	return nil
}

func rowCapture(r *run) error {
	remote := r.facts.nginx[node2]
	capture := "weft capture -i eth0 -c 4 --timeout 10s --host " + remote.ip
	type answer struct {
		out string
		err error
	}
	done := make(chan answer, 1)
	fmt.Fprintf(r.out, "[root@%s ~]# %s\n", node2, capture)
	go func() {
		out, err := r.quiet(node2, capture)
		done <- answer{out, err}
	}()
	var got answer
	err := r.wait("captured packets", 12*time.Second, func() bool {
		_, _ = r.lab.Kubectl(r.ctx, "exec", "sshd-2", "--", "curl", "-s", "-m", "5", "http://"+remote.ip+"/") // the capture is what is checked
		select {
		case got = <-done:
			return true
		default:
			return false
		}
	})
	if err != nil {
		return err
	}
	r.print(got.out)
	r.has(got.out, "udp 172.17.42.31:", "-> 172.17.42.32:8472", "VXLAN vni 1")
	r.check(strings.Contains(got.out, "tcp "+r.facts.sshd.ip+":") && strings.Contains(got.out, "-> "+remote.ip+":80"), "inner packet %s -> %s:80", r.facts.sshd.ip, remote.ip)
	return got.err
}

func rowMasquerade(r *run) error {
	remote := r.facts.nginx[node2]
	get := []string{"exec", "sshd-2", "--", "curl", "-s", "-m", "5", "http://" + remote.ip + "/"}
	out := r.kubectl(get...)
	r.check(strings.Contains(out, "client_address="+r.facts.sshd.ip), "by default nginx on node2 sees the pod's own address %s", r.facts.sshd.ip)
	r.say("now with the article's docker rule (--masquerade-pods)")
	if err := r.lab.Restart(r.ctx, node1, "agent", "--masquerade-pods=true"); err != nil {
		return err
	}
	err := r.wait("the masquerade rule", 10*time.Second, func() bool {
		out, err := r.quiet(node1, "iptables-save -t nat")
		return err == nil && strings.Contains(out, "-s 172.16.28.0/24 ! -o docker0 -j MASQUERADE")
	})
	if err != nil {
		return err
	}
	r.has(r.sh(node1, "iptables-save -t nat | grep MASQUERADE"), "-s 172.16.28.0/24 ! -o docker0 -j MASQUERADE")
	out = r.kubectl(get...)
	r.check(strings.Contains(out, "client_address=172.16.28.0"), "with it nginx on node2 sees flannel.1's address 172.16.28.0")
	if err := r.lab.Restart(r.ctx, node1, "agent", "--masquerade-pods=false"); err != nil {
		return err
	}
	return r.wait("the masquerade rule to go", 10*time.Second, func() bool {
		out, err := r.quiet(node1, "iptables-save -t nat")
		return err == nil && !strings.Contains(out, "-s 172.16.28.0/24 ! -o docker0 -j MASQUERADE")
	})
}

// lineWith returns the first line of the output that holds all the texts, or "".
func lineWith(output string, texts ...string) string {
	for line := range strings.Lines(output) {
		all := true
		for _, t := range texts {
			all = all && strings.Contains(line, t)
		}
		if all {
			return line
		}
	}
	return ""
}
