package replay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// flow is one leg of a connection.
type flow struct{ src, dst netip.AddrPort }

func (f flow) String() string { return fmt.Sprintf("%s -> %s", f.src, f.dst) }

// client is where a connection to the service is made from: a pod or a node.
type client struct {
	name string // as weft explain calls it
	node string // the node whose sockets are looked at
	pod  string // "" for the node itself
}

// open leaves a telnet to the service open for a while.
func (c client) open(r *run) error {
	telnet := fmt.Sprintf("(sleep 30 | busybox telnet %s 8080) >/tmp/telnet.out 2>&1 &", r.facts.vip)
	if c.pod == "" {
		fmt.Fprintf(r.out, "[root@%s ~]# telnet %s 8080\n", c.node, r.facts.vip)
		_, err := r.quiet(c.node, telnet)
		return err
	}
	fmt.Fprintf(r.out, "[root@%s ~]# telnet %s 8080\n", c.pod, r.facts.vip)
	_, err := r.lab.Kubectl(r.ctx, "exec", c.pod, "--", "sh", "-c", telnet)
	return err
}

// close ends what open left.
func (c client) close(r *run) {
	kill := "busybox killall telnet sleep 2>/dev/null; true"
	if c.pod == "" {
		_, _ = r.quiet(c.node, kill) // nothing to kill is fine
		return
	}
	_, _ = r.lab.Kubectl(r.ctx, "exec", c.pod, "--", "sh", "-c", kill) // nothing to kill is fine
}

// sockets returns the connection table as the client sees it.
func (c client) sockets(r *run) string {
	if c.pod == "" {
		out, err := r.quiet(c.node, "busybox netstat -tn 2>/dev/null")
		if err != nil {
			return ""
		}
		return out
	}
	out, err := r.lab.Kubectl(r.ctx, "exec", c.pod, "--", "busybox", "netstat", "-tn")
	if err != nil {
		return ""
	}
	return out
}

// toService finds the client's own leg in a netstat table.
func (r *run) toService(table string) (flow, bool) {
	f := strings.Fields(lineWith(table, r.facts.vip+":8080", "ESTABLISHED"))
	if len(f) < 5 {
		return flow{}, false
	}
	src, err1 := netip.ParseAddrPort(f[3])
	dst, err2 := netip.ParseAddrPort(f[4])
	return flow{src, dst}, err1 == nil && err2 == nil
}

// legs reads the proxy's established connections on a node from ss: the one the client's arrived on, and the one to a pod.
func legs(table string, cl flow) (accepted, upstream flow, ok bool) {
	found := 0
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.Contains(line, `"weft"`) {
			continue
		}
		local, err1 := parseSocket(f[len(f)-3])
		peer, err2 := parseSocket(f[len(f)-2])
		switch {
		case err1 != nil || err2 != nil:
		case peer == cl.src:
			accepted = flow{peer, local}
			found |= 1
		case peer.Port() == 80:
			upstream = flow{local, peer}
			found |= 2
		}
	}
	return accepted, upstream, found == 3
}

// parseSocket reads an address as ss prints it: IPv4 addresses of dual-stack sockets are IPv4-mapped.
func parseSocket(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err
}

// userspaceCase connects and shows both of the proxy's sockets, until the wanted endpoint is reached; the round robin
// reaches every endpoint in as many tries as there are.
func userspaceCase(r *run, c client, want pod, wantSource, why string) error {
	for range 2 * len(r.facts.nginx) {
		done, err := userspaceTry(r, c, want, wantSource, why)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s never reached %s through the service", c.name, want.name)
}

func userspaceTry(r *run, c client, want pod, wantSource, why string) (bool, error) {
	if err := c.open(r); err != nil {
		return false, err
	}
	defer c.close(r)
	var table, sockets string
	var cl, accepted, upstream flow
	err := r.wait("the connection and the proxy's two sockets", 5*time.Second, func() bool {
		var ok bool
		table = c.sockets(r)
		if cl, ok = r.toService(table); !ok {
			return false
		}
		sockets, _ = r.quiet(c.node, "ss -Htnp state established") // asked again until both sockets are there
		accepted, upstream, ok = legs(sockets, cl)
		return ok
	})
	if err != nil {
		return false, err
	}
	if upstream.dst.Addr().String() != want.ip {
		r.say("this one went to %s; once more", upstream.dst)
		return false, nil
	}
	r.print(lineWith(table, cl.src.String(), cl.dst.String()))
	fmt.Fprintf(r.out, "[root@%s ~]# ss -Htnp state established | grep weft\n", c.node)
	for line := range strings.Lines(sockets) {
		if strings.Contains(line, ":"+r.facts.ports[c.node]) || strings.Contains(line, ":80 ") {
			r.print(line)
		}
	}
	r.check(upstream.src.Addr().String() == wantSource, "the proxy's source towards %s is %s: %s", want.ip, upstream.src.Addr(), why)
	r.print(r.route(c.node, want.ip))
	fmt.Fprintf(r.out, "{%s} => {%s} => {%s}\n", cl, accepted, upstream)
	return true, checkExplain(r, c, want, []flow{cl, accepted, upstream})
}

// route asks the kernel which route it uses.
func (r *run) route(host, ip string) string {
	out, err := r.quiet(host, "ip route get "+ip)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("[root@%s ~]# ip route get %s\n%s", host, ip, out)
}

// explained is what "weft explain -o json" prints, as far as the replay looks.
type explained struct {
	Verdict string
	Flows   []struct{ Src, Dst netip.AddrPort }
}

// checkExplain compares the planned path with the live one: every leg must appear, in order, among the explained flows.
func checkExplain(r *run, c client, want pod, live []flow) error {
	question := fmt.Sprintf("weft explain %s my-nginx-service --endpoint %s", c.name, want.ip)
	r.sh(master, question)
	out, err := r.quiet(master, question+" -o json")
	if err != nil {
		return err
	}
	var e explained
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		return fmt.Errorf("read the explanation: %w", err)
	}
	r.check(e.Verdict == "delivered", "explain: delivered")
	at := 0
	for _, leg := range live {
		for at < len(e.Flows) && (e.Flows[at].Dst != leg.dst || e.Flows[at].Src.Addr() != leg.src.Addr()) {
			at++
		}
		r.check(at < len(e.Flows), "the plan foretold %s -> %s", leg.src.Addr(), leg.dst)
	}
	return nil
}

func rowPodToService(r *run) error {
	c := client{name: "default/sshd-2", node: node1, pod: "sshd-2"}
	return userspaceCase(r, c, r.facts.nginx[node2], subnetOf[node1]+".0", "flannel.1's address, as the route to the remote pod leaves by flannel.1")
}

func rowNodeToService(r *run) error {
	r.say("node1 reaches the pod of node2: the proxy's source is flannel.1's address")
	c := client{name: node1, node: node1}
	if err := userspaceCase(r, c, r.facts.nginx[node2], subnetOf[node1]+".0", "flannel.1's, the pod is remote"); err != nil {
		return err
	}
	r.say("node2 reaches its own pod: the proxy's source is docker0's address")
	c = client{name: node2, node: node2}
	return userspaceCase(r, c, r.facts.nginx[node2], subnetOf[node2]+".1", "docker0's, the pod is local")
}

func rowPictures(r *run) error {
	out := r.sh(master, "weft explain default/sshd-2 my-nginx-service --graph text")
	r.has(out, "sshd-2", "docker0", "flannel.1")
	out, err := r.quiet(master, "weft explain default/sshd-2 my-nginx-service --graph svg")
	if err != nil {
		return err
	}
	r.check(strings.HasPrefix(strings.TrimSpace(out), "<svg"), "an SVG of the packet's flow: weft lab graph --flow default/sshd-2,my-nginx-service --svg FILE")
	return nil
}

func rowSwitchToIPTables(r *run) error {
	if err := r.switchMode("iptables", "KUBE-PORTALS"); err != nil {
		return err
	}
	r.sh(node1, "iptables-save -t nat | grep my-nginx-service")
	return showService(r)
}

func rowSwitchToNFTables(r *run) error {
	if err := r.switchMode("nftables", "WEFT-"); err != nil {
		return err
	}
	if out, err := r.quiet(node1, "command -v nft"); err == nil && strings.TrimSpace(out) != "" {
		r.sh(node1, "nft list table inet weft")
	}
	return showService(r)
}

// switchMode restarts the agents in another proxy mode and checks that nothing remains of the old one's iptables chains.
func (r *run) switchMode(mode, old string) error {
	r.say("the agents are restarted with --proxy-mode=%s: their rules change, the service does not", mode)
	for _, n := range []string{node1, node2} {
		if err := r.lab.Restart(r.ctx, n, "agent", "--proxy-mode="+mode); err != nil {
			return err
		}
	}
	r.mode = mode
	for _, n := range []string{node1, node2} {
		err := r.wait("the "+mode+" rules on "+n, 10*time.Second, func() bool {
			out, err := r.quiet(n, "weft status -o json")
			return err == nil && strings.Contains(out, `"proxyMode":"`+mode+`"`) && strings.Contains(out, `"converged":true`)
		})
		if err != nil {
			return err
		}
		// What lets pods' packets through a FORWARD chain of others is there in every mode.
		out := r.sh(n, "iptables-save | grep "+old+" | grep -v WEFT-FORWARD | wc -l")
		r.check(strings.TrimSpace(out) == "0", "nothing of the old mode remains on %s", n)
	}
	return nil
}

func rowPodToServiceConntrack(r *run) error {
	c := client{name: "default/sshd-2", node: node1, pod: "sshd-2"}
	return conntrackCase(r, c, r.facts.nginx[node2])
}

func rowNodeToServiceConntrack(r *run) error {
	r.say("node1 to the pod of node2, then node2 to its own pod")
	if err := conntrackCase(r, client{name: node1, node: node1}, r.facts.nginx[node2]); err != nil {
		return err
	}
	return conntrackCase(r, client{name: node2, node: node2}, r.facts.nginx[node2])
}

// conntrackCase connects until the wanted endpoint is chosen (at random: the bound makes a miss a one in a million case)
// and compares the kernel's connection tracking entry with the plan.
func conntrackCase(r *run, c client, want pod) error {
	for range 20 {
		done, err := conntrackTry(r, c, want)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s never reached %s through the service", c.name, want.name)
}

var tuples = regexp.MustCompile(`src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)`)

func conntrackTry(r *run, c client, want pod) (bool, error) {
	if err := c.open(r); err != nil {
		return false, err
	}
	defer c.close(r)
	var table, entry string
	var cl flow
	err := r.wait("the connection and its conntrack entry", 5*time.Second, func() bool {
		var ok bool
		table = c.sockets(r)
		if cl, ok = r.toService(table); !ok {
			return false
		}
		all, _ := r.quiet(c.node, "cat /proc/net/nf_conntrack") // asked again until the entry is there
		entry = lineWith(all, "dst="+r.facts.vip, fmt.Sprintf("sport=%d ", cl.src.Port()), "ESTABLISHED")
		return entry != ""
	})
	if err != nil {
		return false, err
	}
	m := tuples.FindAllStringSubmatch(entry, 2)
	if len(m) != 2 {
		return false, fmt.Errorf("conntrack entry %q: want two tuples", entry)
	}
	reply, err := parseTuple(m[1])
	if err != nil || reply.src.Addr().String() != want.ip {
		return false, err
	}
	r.print(lineWith(table, cl.src.String(), cl.dst.String()))
	fmt.Fprintf(r.out, "[root@%s ~]# grep dst=%s /proc/net/nf_conntrack\n", c.node, r.facts.vip)
	r.print(entry)
	sent := flow{reply.dst, reply.src}
	fmt.Fprintf(r.out, "{%s} => {%s}\n", cl, sent)
	return true, checkExplain(r, c, want, []flow{cl, sent})
}

func parseTuple(m []string) (flow, error) {
	src, err := netip.ParseAddrPort(m[1] + ":" + m[3])
	if err != nil {
		return flow{}, fmt.Errorf("conntrack tuple: %w", err)
	}
	dst, err := netip.ParseAddrPort(m[2] + ":" + m[4])
	if err != nil {
		return flow{}, fmt.Errorf("conntrack tuple: %w", err)
	}
	return flow{src, dst}, nil
}
