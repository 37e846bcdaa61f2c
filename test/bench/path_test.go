package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/agent/rundir"
	"weft/internal/agent/status"
	"weft/internal/attach"
	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

// pair is two hosts on one wire, with a pod each.
type pair struct {
	tb    testing.TB
	name  string
	hosts [2]*netns.NS
	pods  [2]*netns.NS
	ips   [2]netip.Addr // of the pods
	addrs [2]netip.Addr // of the hosts
}

func newPair(tb testing.TB, name string) *pair {
	tb.Helper()
	p := &pair{tb: tb, name: name}
	for i := range 2 {
		for what, to := range map[string]**netns.NS{"host": &p.hosts[i], "pod": &p.pods[i]} {
			ns, err := netns.New(fmt.Sprintf("/run/netns/%s-%s%d", name, what, i))
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() { _ = ns.Close() })
			*to = ns
		}
		p.ips[i] = netip.AddrFrom4([4]byte{10, 1, byte(i), 5})
		p.addrs[i] = netip.AddrFrom4([4]byte{172, 17, 42, byte(31 + i)})
	}
	daemon.Run(tb, fmt.Sprintf("ip link add %s type veth peer name %s", name+"0", name+"1"))
	for i := range 2 {
		daemon.Run(tb, fmt.Sprintf("ip link set %s%d netns %s-host%d name eth0", name, i, name, i))
		p.host(i, "ip link set eth0 up", fmt.Sprintf("ip addr add %s/16 dev eth0", p.addrs[i]), "sysctl -qw net.ipv4.ip_forward=1")
	}
	return p
}

func (p *pair) host(i int, lines ...string) {
	p.tb.Helper()
	for _, line := range lines {
		daemon.Run(p.tb, fmt.Sprintf("nsenter --net=/run/netns/%s-host%d %s", p.name, i, line))
	}
}

// reference makes what a node with flannel has, by plain commands: a bridge for the pods, a VXLAN device whose outer packets are tracked,
// a route, a neighbour and a forwarding entry for the peer, and flannel's chains.
func (p *pair) reference() {
	p.tb.Helper()
	mac := func(i int) string { return fmt.Sprintf("02:00:00:00:01:%02x", i) }
	for i := range 2 {
		o := 1 - i
		p.host(i,
			fmt.Sprintf("ip link add flannel.1 address %s type vxlan id 1 dev eth0 local %s dstport 8472 nolearning", mac(i), p.addrs[i]),
			fmt.Sprintf("ip addr add 10.1.%d.0/32 dev flannel.1", i), "ip link set flannel.1 up",
			fmt.Sprintf("ip neigh replace 10.1.%d.0 lladdr %s dev flannel.1 nud permanent", o, mac(o)),
			fmt.Sprintf("bridge fdb replace %s dst %s dev flannel.1 self permanent", mac(o), p.addrs[o]),
			fmt.Sprintf("ip route add 10.1.%d.0/24 via 10.1.%d.0 dev flannel.1 onlink", o, o),
			"ip link add cni0 mtu 1450 type bridge", fmt.Sprintf("ip addr add 10.1.%d.1/24 dev cni0", i), "ip link set cni0 up",
			fmt.Sprintf("ip link add veth0 mtu 1450 type veth peer name eth0 mtu 1450 netns %s-pod%d", p.name, i),
			"ip link set veth0 master cni0", "bridge link set dev veth0 hairpin on", "ip link set veth0 up",
		)
		for _, line := range []string{
			"ip link set eth0 up", fmt.Sprintf("ip addr add %s/24 dev eth0", p.ips[i]), fmt.Sprintf("ip route add default via 10.1.%d.1", i),
		} {
			daemon.Run(p.tb, fmt.Sprintf("nsenter --net=/run/netns/%s-pod%d %s", p.name, i, line))
		}
		const n = "10.1.0.0/16"
		s := fmt.Sprintf("10.1.%d.0/24", i)
		masq := "-m comment --comment flanneld-masq"
		p.host(i,
			"iptables -t nat -N FLANNEL-POSTRTG", "iptables -t nat -A POSTROUTING "+masq+" -j FLANNEL-POSTRTG",
			"iptables -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 "+masq+" -j RETURN",
			"iptables -t nat -A FLANNEL-POSTRTG -s "+s+" -d "+n+" "+masq+" -j RETURN",
			"iptables -t nat -A FLANNEL-POSTRTG -s "+n+" -d "+s+" "+masq+" -j RETURN",
			"iptables -t nat -A FLANNEL-POSTRTG ! -s "+n+" -d "+s+" "+masq+" -j RETURN",
			"iptables -t nat -A FLANNEL-POSTRTG -s "+n+" ! -d 224.0.0.0/4 "+masq+" -j MASQUERADE --random-fully",
			"iptables -t nat -A FLANNEL-POSTRTG ! -s "+n+" -d "+n+" "+masq+" -j MASQUERADE --random-fully",
			"iptables -N FLANNEL-FWD", "iptables -A FORWARD "+masq+" -j FLANNEL-FWD",
			"iptables -A FLANNEL-FWD -s "+n+" "+masq+" -j ACCEPT", "iptables -A FLANNEL-FWD -d "+n+" "+masq+" -j ACCEPT",
		)
	}
}

// agents runs the real agent on both hosts, which finds its pod among those that were attached before.
func (p *pair) agents(flags ...string) {
	p.tb.Helper()
	if programs.weft == "" {
		p.tb.Skip("no bin/weft: make build, or set WEFT_BIN")
	}
	s := newStore(p.tb, 0)
	s.put(s.prefix+"/config", `{"Network":"10.1.0.0/16","SubnetLen":24,"SubnetMin":"10.1.0.0","Backend":{"Type":"vxlan"}}`)
	var dirs [2]string
	for i := range 2 {
		dirs[i] = p.tb.TempDir()
		pod := attach.Pod{
			UID: fmt.Sprint("pod", i), Namespace: "default", Name: fmt.Sprint("pod", i), IPs: []netip.Addr{p.ips[i]}, Netns: p.pods[i].Path(),
		}
		text, err := json.Marshal(map[string]any{"last": p.ips[i], "pods": map[string]attach.Pod{pod.UID: pod}})
		if err == nil {
			err = os.MkdirAll(filepath.Join(dirs[i], "run"), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dirs[i], "run", "attachments.json"), text, 0o600)
		}
		if err != nil {
			p.tb.Fatal(err)
		}
		args := append([]string{
			"--net=" + p.hosts[i].Path(), programs.weft, "agent", "--node-name", fmt.Sprint("host", i), "--kubeconfig=",
			"--etcd-endpoints", s.inside(p.hosts[i]), "--etcd-prefix", s.prefix, "--iface", "eth0", "--subnet", fmt.Sprintf("10.1.%d.0/24", i),
			"--subnet-file", filepath.Join(dirs[i], "subnet.env"), "--run-dir", filepath.Join(dirs[i], "run"),
			"--state-dir", filepath.Join(dirs[i], "state"), "--pod-runtime", "none", "--kubelet-port", "0", "--healthz-bind=", "--metrics-bind=",
		}, flags...)
		cmd := exec.Command("nsenter", args...)
		log := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			p.tb.Fatal(err)
		}
		p.tb.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if p.tb.Failed() {
				p.tb.Logf("agent %d:\n%s", i, log)
			}
		})
	}
	for i := range 2 {
		p.wait(dirs[i])
	}
}

// wait waits until the agent with the directory knows its peer and is content.
func (p *pair) wait(dir string) {
	p.tb.Helper()
	var status status.Status
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		body, err := rundir.Ask(context.Background(), filepath.Join(dir, "run"), "/status")
		if err == nil && json.Unmarshal(body, &status) == nil && status.Converged && status.Peers == 1 && status.Pods == 1 {
			return
		}
	}
	p.tb.Fatalf("agent in %s is not ready: %+v", dir, status)
}

// inside returns a URL by which the store is reached in the namespace.
func (s *store) inside(ns *netns.NS) (url string) {
	s.tb.Helper()
	err := ns.Do(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			url = s.serve(l, 0)
		}
		return err
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return url
}
