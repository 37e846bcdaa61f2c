package modes

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const objects = `
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  selector: {app: echo}
  ports:
  - {name: tcp, port: 7000, nodePort: 30700, protocol: TCP}
  - {name: udp, port: 7000, nodePort: 30700, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: idle}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
`

func podYAML(name, host, app string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  nodeName: %s
  containers: [{name: c, image: busybox, command: [sleep, "36000"]}]
`, name, app, host)
}

// populate makes an echo server and a client on each node and returns the service's address.
func (c *cluster) populate() (vip string) {
	c.T.Helper()
	text := objects
	for _, h := range hosts {
		text += podYAML("echo-"+h, h, "echo") + podYAML("client-"+h, h, "client")
	}
	c.Write(master, "/root/objects.yaml", text)
	c.Kubectl("apply", "-f", "/root/objects.yaml")
	for _, h := range hosts {
		c.Kubectl("wait", "--for=condition=Ready", "pod/echo-"+h, "pod/client-"+h, "--timeout=90s")
		c.in("echo on "+h, c.podNetns(h, "echo-"+h), echoArg)
	}
	c.eventually("the service has two endpoints", time.Minute, func() (bool, string) {
		out := c.Kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=echo", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}")
		return len(strings.Fields(out)) == 2, out
	})
	return c.Kubectl("get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
}

// clients are in pods and on nodes, which use the service's address, and outside, where node ports are used.
func (c *cluster) clients(vip string) []*program {
	c.T.Helper()
	to := vip + ":7000"
	var out []*program
	for _, h := range hosts {
		out = append(out, c.in("pod on "+h, c.podNetns(h, "client-"+h), clientArg, "40", to))
		out = append(out, c.in("node "+h, c.hostNetns(h), clientArg, "40", to))
	}
	outside := []string{clientArg, "20"}
	for _, h := range hosts {
		for _, x := range c.Topology().Hosts {
			if x.Name == h {
				outside = append(outside, x.Address.String()+":30700")
			}
		}
	}
	out = append(out, c.in("outside", c.hostNetns(master), outside...))
	for _, p := range out {
		p.ready()
	}
	return out
}

// account ends the clients and fails the test for every connection that broke or did not come about.
func account(t *testing.T, clients []*program) {
	t.Helper()
	held, rounds, fresh := 0, 0, 0
	for _, p := range clients {
		n := p.end()
		held, rounds, fresh = held+n.Held, rounds+n.Rounds, fresh+n.Fresh
		if n.Broken+n.Failures > 0 || n.Rounds == 0 || n.Fresh == 0 {
			t.Errorf("%s: %d of %d held ones broke, %d of %d new ones failed:\n%s", p.name, n.Broken, n.Held, n.Failures, n.Fresh, strings.Join(n.Errors, "\n"))
		}
		t.Logf("%-16s %3d held, %6d exchanges, %5d new, slowest %s", p.name, n.Held, n.Rounds, n.Fresh, n.Slowest)
	}
	t.Logf("%d long-lived connections and flows with %d exchanges, %d new ones", held, rounds, fresh)
}

// status is what the test reads of weft status.
type status struct {
	ProxyMode string   `json:"proxyMode"`
	Converged bool     `json:"converged"`
	Draining  int      `json:"draining"`
	Relayed   int      `json:"relayed"`
	Warnings  []string `json:"warnings"`
}

func (c *cluster) status(host string) (s status, text string) {
	c.T.Helper()
	text, err := c.Sh(host, "weft status -o json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil {
		return status{}, err.Error() + text
	}
	return s, text
}

// inForce waits until the host serves in the mode.
func (c *cluster) inForce(host, mode string) {
	c.T.Helper()
	c.eventually(host+" in mode "+mode, time.Minute, func() (bool, string) {
		s, text := c.status(host)
		return s.ProxyMode == mode && s.Converged, text
	})
}

var emptyChain = regexp.MustCompile(`^:[A-Z]+ ACCEPT \[|^\*|^COMMIT|^#|^$`)

// kernel is all there is of packet filters and of listeners on a host, but for empty tables of iptables and for what grows by itself.
func (c *cluster) kernel(host string) string {
	c.T.Helper()
	text := c.Must(host, "nft list table inet weft; iptables-save; ip6tables-save; ss -Hltun | awk '{print $1, $5}' | sort; weft diff")
	counters := regexp.MustCompile(`\[\d+:\d+\]|counter packets \d+ bytes \d+| expires \S+`)
	var lines []string
	for line := range strings.SplitSeq(counters.ReplaceAllString(text, ""), "\n") {
		if !emptyChain.MatchString(line) && !strings.HasPrefix(line, ":PREROUTING") && !regexp.MustCompile(`^:[A-Z]+ ACCEPT`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines) // chains are listed in the order they were made
	return strings.Join(lines, "\n")
}

// others are settings that change along with the mode, at random.
func others() string {
	var b strings.Builder
	for _, name := range []string{"edge-check", "ip-masq-random-fully", "forward-rules", "localhost-nodeports", "masquerade-all", "conntrack-tcp-be-liberal"} {
		fmt.Fprintf(&b, "%s: %t\n", name, rand.IntN(2) == 0)
	}
	if rand.IntN(2) == 0 {
		b.WriteString("non-masquerade-cidr: [192.0.2.0/24]\n")
	}
	return b.String()
}

// TestSwitchModes changes both nodes through all modes, and other settings with them, while hundreds of connections live and others are made.
// In the end nothing is left of the modes they were in.
func TestSwitchModes(t *testing.T) {
	c := up(t, "nodes: 2")
	vip := c.populate()
	first := map[string]string{node1: "nftables", node2: "userspace"}
	before := map[string]string{}
	for _, h := range hosts {
		c.restart(h, first[h])
		c.inForce(h, first[h])
		if first[h] == "nftables" {
			before[h] = c.kernel(h)
		}
	}
	clients := c.clients(vip)
	modes := []string{"nftables", "iptables", "userspace"}
	now := map[string]string{node1: first[node1], node2: first[node2]}
	begun := time.Now()
	for i := range *switches {
		for _, h := range hosts {
			next := modes[rand.IntN(len(modes))]
			for next == now[h] {
				next = modes[rand.IntN(len(modes))]
			}
			text := others()
			if i == *switches-1 {
				next, text = first[node1], "" // one mode for all, to compare with the node that was in no other
			}
			now[h] = next
			c.Write(h, settingsFile, "proxy-mode: "+next+"\n"+text)
		}
		for _, h := range hosts {
			c.inForce(h, now[h])
		}
	}
	t.Logf("%d changes on each of %d nodes in %s", *switches, len(hosts), time.Since(begun).Round(time.Second))
	account(t, clients)
	for _, h := range hosts {
		c.eventually(h+": mode userspace has drained", 90*time.Second, func() (bool, string) {
			s, text := c.status(h)
			return s.Draining == 0 && s.Relayed == 0, text
		})
	}
	if after := c.kernel(node1); after != before[node1] {
		t.Errorf("%s after all changes:\n%s\nbefore:\n%s", node1, after, before[node1])
	}
	if left := c.kernel(node2); strings.Contains(left, "WEFT-S") || strings.Contains(left, "KUBE-") || regexp.MustCompile(`:6[1-5]\d\d\d$`).MatchString(left) {
		t.Errorf("%s after all changes:\n%s", node2, left)
	}
}

// TestSettingsFile: what is wrong changes nothing and is named, what needs a restart is named, links are followed.
func TestSettingsFile(t *testing.T) {
	c := up(t, "nodes: 1")
	c.restart(node1, "nftables")
	c.inForce(node1, "nftables")
	warned := func(want string) {
		t.Helper()
		c.eventually("status warns: "+want, 20*time.Second, func() (bool, string) {
			s, text := c.status(node1)
			return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, want) }), text
		})
	}
	c.Write(node1, settingsFile, "proxy-mode: iptables\nedge-chek: false\n")
	warned(settingsFile + ":2: edge-chek: there is no such setting")
	if s, text := c.status(node1); s.ProxyMode != "nftables" {
		t.Errorf("half of a file was taken up: %s", text)
	}
	c.Write(node1, settingsFile, "proxy-mode: iptables\nhealthz-bind: 127.0.0.1:10999\nedge-check: false\n")
	warned("needs restart: healthz-bind: 127.0.0.1:10999 in " + settingsFile)
	c.inForce(node1, "iptables")
	c.eventually("the edge check is off", 20*time.Second, func() (bool, string) {
		out := c.Must(node1, "nft list table inet weft")
		return !strings.Contains(out, "edge-inner"), out
	})
	out := c.Must(node1, "weft settings")
	for _, want := range []string{
		`proxy-mode\s+iptables\s+` + settingsFile + `:1\s+live`, `edge-check\s+false\s+` + settingsFile + `:3\s+live`, `iface\s+eth0\s+flag\s+restart`,
		`healthz-bind\s+0.0.0.0:10256\s`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("weft settings has no %s:\n%s", want, out)
		}
	}
	// As the kubelet mounts a ConfigMap: a link to a link to a directory, which is swapped.
	c.Must(node1, `mkdir -p /etc/weft/..1 /etc/weft/..2; echo proxy-mode: userspace > /etc/weft/..1/agent.yaml; echo proxy-mode: nftables > /etc/weft/..2/agent.yaml
		cd /etc/weft && ln -s ..1 ..data && ln -s ..data/agent.yaml link && mv -T link agent.yaml`)
	c.inForce(node1, "userspace")
	c.Must(node1, `cd /etc/weft && ln -s ..2 ..new && mv -T ..new ..data`)
	c.inForce(node1, "nftables")
	c.Must(node1, `rm /etc/weft/agent.yaml`)
	warned("read configuration")
	c.Write(node1, settingsFile, "proxy-mode: iptables\nverbose: 1\n")
	c.inForce(node1, "iptables")
}
