package docker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/lab"
)

// etcd is where the leases are.
const etcd = "http://172.17.42.31:2379"

// TestContainersOfThreeDaemons joins containers of dockerd on three hosts.
func TestContainersOfThreeDaemons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("dockerd needs root")
	}
	group := fmt.Sprintf("weft-docker-test-%d", os.Getpid())
	t.Cleanup(func() { removeCgroups(t, group) }) // after the lab is down
	h := up(t, 3)
	all := h.Topology().Names()
	h.background("h1", "etcd", "exec etcd --data-dir /var/lib/etcd --listen-client-urls "+etcd+" --advertise-client-urls "+etcd+
		" --listen-peer-urls http://127.0.0.1:2380")
	h.Must("h1", `echo '{"Network": "172.16.0.0/12", "Backend": {"Type": "vxlan"}}' > /root/net.json`)
	h.eventually("h1", "weft network apply -f /root/net.json --etcd-endpoints="+etcd, 20*time.Second)

	rootfs := image(t)
	var wg sync.WaitGroup
	for i, host := range all {
		mode := []string{"nftables", "iptables", "nftables"}[i]
		wg.Go(func() { h.docker(host, mode, i == 2, group, rootfs) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	at := map[string]string{}
	for _, host := range all {
		at[host] = h.Must(host, "docker inspect -f '{{.NetworkSettings.IPAddress}}' web")
		env := h.Must(host, "cat /run/flannel/subnet.env")
		bridge := h.Must(host, "ip addr show docker0; iptables -S FORWARD")
		for _, want := range []string{"mtu 1450", "inet " + value(env, "FLANNEL_SUBNET") + " ", "-P FORWARD DROP"} {
			if !strings.Contains(bridge, want) {
				t.Errorf("%s: no %q in\n%s", host, want, bridge)
			}
		}
		if inside := h.Must(host, "docker exec web ip link show eth0"); !strings.Contains(inside, "mtu 1450") {
			t.Errorf("%s: container's interface: %s", host, inside)
		}
	}
	h.everyPair(all, at)
	for _, host := range all { // dockerd and the agent do not fight over the bridge
		h.eventually(host, `out=$(weft diff) && [ -z "$out" ] || { echo "not as planned: $out"; exit 1; }`, 10*time.Second)
	}
	h.Must("h1", "docker rm -f web")
}

// value is that of a line NAME=value.
func value(env, name string) string {
	for line := range strings.Lines(env) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return v
		}
	}
	return ""
}

// docker runs agent, dockerd and a container with a web server on a host. It is called beside the test: it reports, it does not stop it.
func (h *hosts) docker(host, mode string, file bool, group string, rootfs []byte) {
	try := func(command string) (string, bool) {
		out, err := h.text(host, command)
		if err != nil {
			h.T.Errorf("%s: %s: %v\n%s", host, command, err, out)
		}
		return out, err == nil
	}
	start := `{ weft agent --kubeconfig= --etcd-endpoints=` + etcd + ` --iface=eth0 --attach=bridge --bridge=docker0 --pod-runtime=none \
  --proxy-mode=` + mode + `; } >/var/log/agent.log 2>&1 </dev/null &
for i in $(seq 600); do weft docker-opts -d /run/docker_opts.env 2>/run/why && break; sleep 0.1; done
[ -s /run/docker_opts.env ] || { cat /run/why; exit 1; }
rm -f /etc/docker; mkdir -p /etc/docker /www/cgi-bin 2>/dev/null; mkdir -p /etc/docker`
	if _, ok := try(start); !ok {
		return
	}
	options := `. /run/docker_opts.env; exec dockerd $DOCKER_OPTS`
	if file {
		options = `weft docker-opts -o json > /etc/docker/daemon.json; exec dockerd`
	}
	daemon := `{ ` + options + ` --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid -H unix:///run/docker.sock \
  --cgroup-parent=/` + group + `; } >/var/log/dockerd.log 2>&1 </dev/null &
for i in $(seq 600); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
iptables -P FORWARD DROP # as dockerd does where it is the first to switch ip_forward on
docker info -f '{{.Driver}} {{.CgroupVersion}}'`
	driver, ok := try(daemon)
	if !ok {
		return
	}
	h.T.Logf("%s: storage driver and version of cgroups: %s", host, driver)
	var out bytes.Buffer
	if err := h.ExecIO(h.T.Context(), host, lab.Stdio{In: bytes.NewReader(rootfs), Out: &out, Err: &out}, "docker", "import", "-", "web"); err != nil {
		h.T.Errorf("%s: docker import: %v\n%s", host, err, out.String())
		return
	}
	try("docker run -d --name web web httpd -f -p 80 -h /www")
	// The same page on the host itself, for containers that ask the host.
	try(`mkdir -p /tmp/www/cgi-bin && printf '%s' '` + who + `' > /tmp/www/cgi-bin/who && chmod 755 /tmp/www/cgi-bin/who && busybox httpd -p 8080 -h /tmp/www`)
}

// everyPair sends between containers of all hosts, and between containers and hosts, and looks at the source address that arrives.
func (h *hosts) everyPair(all []string, at map[string]string) {
	ask := func(from, to, want string, inside bool) {
		h.T.Helper()
		command := get(to, "/cgi-bin/who") + " | tail -n 1"
		if inside {
			command = `docker exec web sh -c "` + command + `"`
		}
		if got, err := h.text(from, command); err != nil || got != want {
			h.T.Errorf("%s: %s: source %q, %v; want %s", from, command, got, err, want)
		}
	}
	for _, from := range all {
		host, _ := h.Topology().Host(from)
		for _, to := range all {
			other, _ := h.Topology().Host(to)
			if from == to {
				continue
			}
			h.Must(from, "docker exec web ping -c 1 -W 5 "+at[to])
			// Container to container: nobody masquerades. Container to a host: the agent does, as outside the pod network.
			ask(from, at[to]+" 80", at[from], true)
			ask(from, other.Address.String()+" 8080", host.Address.String(), true)
			// Host to a container elsewhere: the address of its tunnel.
			tunnel, _, _ := strings.Cut(h.Must(from, "ip -4 -o addr show flannel.1 | awk '{print $4}'"), "/")
			ask(from, at[to]+" 80", tunnel, false)
			n, err := strconv.Atoi(h.Must(from, `docker exec web sh -c "`+get(at[to]+" 80", "/bulk")+` | wc -c"`))
			if err != nil || n < 4<<20 {
				h.T.Errorf("%s to %s: %d bytes of 4 MB and the answer's head, %v", from, to, n, err)
			}
		}
	}
}

// get asks a web server, given as address and port, for a page. busybox wget would look up names, which a static program can't.
func get(server, page string) string {
	return "printf 'GET " + page + ` HTTP/1.0\r\n\r\n' | busybox nc -w 5 ` + server
}
