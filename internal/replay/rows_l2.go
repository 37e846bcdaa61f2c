package replay

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// RunL2 performs row 10, the article's docker overlay, on a lab of its own whose network has the backend l2.
func RunL2(ctx context.Context, lab Cluster, out io.Writer, o Options) (Result, error) {
	return perform(ctx, lab, out, o, []row{{"10", "docker overlay", rowDockerOverlay}})
}

// rowDockerOverlay shows what is different when all containers are in one Ethernet segment: they reach each other, and the hosts, which
// have no address in it, reach none of them.
func rowDockerOverlay(r *run) error {
	if err := r.wait("nodes without taints", 20*time.Second, func() bool {
		out, err := r.lab.Kubectl(r.ctx, "get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")
		return err == nil && strings.TrimSpace(out) == ""
	}); err != nil {
		return err
	}
	if err := r.create("replication.yml"); err != nil {
		return err
	}
	if err := r.learn(); err != nil {
		return err
	}
	local, remote := r.facts.nginx[node1], r.facts.nginx[node2]
	if err := r.wait("the way to the other host's container", 10*time.Second, func() bool {
		out, err := r.quiet(node1, "ip neigh show "+remote.ip+" dev weftl2.1")
		return err == nil && strings.Contains(out, "PERMANENT")
	}); err != nil {
		return err
	}
	out := r.sh(node1, "ip -d link show weftl2.1")
	r.has(out, "vxlan id 1", "master docker0")
	r.say("the VXLAN device is a port of the bridge; with flannel it has a route of its own")
	out = r.sh(node1, "ip -4 addr show dev docker0")
	r.check(!strings.Contains(out, "inet "), "the host has no address on the bridge")
	out = r.sh(node1, "ip route")
	r.check(!strings.Contains(out, "172.16."), "the host has no route to the containers")
	out = r.sh(node1, "bridge fdb show dev weftl2.1 | grep dst; ip neigh show dev weftl2.1")
	r.has(out, "dst "+addressOf[node2], remote.ip+" lladdr")
	r.say("where each container is, host and MAC, comes from the store; ARP is answered on the container's own host")

	get := func(ip string) string { return fmt.Sprintf("curl -s -m 2 http://%s/", ip) }
	out = r.kubectl("exec", local.name, "--", "sh", "-c", get(remote.ip))
	r.check(strings.Contains(out, remote.name) && strings.Contains(out, "client_address="+local.ip),
		"container to container across hosts, with the container's own address")
	for _, p := range []pod{local, remote} {
		out = r.sh(node1, get(p.ip)+"; echo code $?")
		r.check(!strings.Contains(out, p.name) && !strings.Contains(out, "code 0"), "the host does not reach %s on %s", p.ip, p.node)
	}
	r.say("row 8 shows the opposite: with flannel every host reaches every container")
	return nil
}
