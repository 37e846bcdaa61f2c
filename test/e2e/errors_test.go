package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

// wrong is a use of a program that must be refused with one line.
type wrong struct {
	name    string
	before  string   // a shell command on the host: what makes it wrong
	command string   // for the shell
	want    []string // what the line must name
}

// asUser runs a program without the rights of root.
const asUser = "setpriv --reuid=65534 --regid=65534 --clear-groups "

var wrongs = []wrong{
	{"weft unknown flag", "", "weft agent --proxy-modus=nftables", []string{"unknown flag: --proxy-modus", "weft agent --help"}},
	{"weft unknown command", "", "weft agnet", []string{`unknown command "agnet"`, "did you mean agent?", "weft --help"}},
	{"weft-server unknown flag", "", "weft-server --secure-prot=443", []string{"unknown flag: --secure-prot", "weft-server --help"}},
	{
		"weft-server ranges overlap", "", "weft-server --data-dir=/tmp/d --service-cluster-ip-range=172.16.0.0/16 --cluster-cidr=172.16.0.0/12",
		[]string{"--service-cluster-ip-range", "172.16.0.0/16", "overlaps", "172.16.0.0/12"},
	},
	{
		"weft agent ranges overlap", "", "weft agent --kubeconfig= --service-cluster-ip-range=172.16.0.0/16 --cluster-cidr=172.16.0.0/12",
		[]string{"--service-cluster-ip-range", "172.16.0.0/16", "overlaps", "172.16.0.0/12"},
	},
	{
		"weft-server without its etcd", "", "weft-server --data-dir=/tmp/d --etcd-servers=http://127.0.0.1:2379",
		[]string{"--etcd-servers", "http://127.0.0.1:2379", "no etcd answers"},
	},
	{
		"weft network apply without its etcd", "", `echo '{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}' | weft network apply -f - --etcd-endpoints=http://127.0.0.1:2379`,
		[]string{"--etcd-endpoints", "http://127.0.0.1:2379", "no answer", "connection refused"},
	},
	{
		"weft-server port taken", listen("6443"), "weft-server --data-dir=/tmp/d --secure-port=6443",
		[]string{":6443", "address already in use", "--secure-port"},
	},
	{
		"weft-server etcd port taken", listen("2379"), "weft-server --data-dir=/tmp/d --listen-client-urls=http://127.0.0.1:2379",
		[]string{"127.0.0.1:2379", "address already in use", "--listen-client-urls"},
	},
	{
		"weft agent health port taken", listen("10256"), "weft agent --kubeconfig=",
		[]string{"--healthz-bind=0.0.0.0:10256", "address already in use"},
	},
	{
		"weft agent kubelet port taken", listen("10250"), "weft agent --kubeconfig=/etc/weft/kubeconfig",
		[]string{"--kubelet-port=10250", "address already in use"},
	},
	{
		"weft-server may not write", "", asUser + "weft-server --data-dir=/var/lib/other --secure-port=6443",
		[]string{"--data-dir", "/var/lib/other", "permission denied"},
	},
	{
		"weft agent may not write", "", asUser + "weft agent --kubeconfig= --run-dir=/var/lib/other",
		[]string{"--run-dir", "/var/lib/other", "permission denied"},
	},
	{
		"two agents", "(weft agent --kubeconfig= --run-dir=/tmp/run --healthz-bind= --etcd-endpoints=http://127.0.0.1:1 >/tmp/first 2>&1 &) ; " +
			until("test -e /tmp/run/agent.lock"), "weft agent --kubeconfig= --run-dir=/tmp/run --healthz-bind=", []string{"another agent runs", "--run-dir=/tmp/run"},
	},
	{
		"topology field", "printf 'hosts:\\n- {name: a, adress: 172.17.42.30}\\n' > /tmp/t.yml", "weft lab up -f /tmp/t.yml",
		[]string{"line 2", "adress", "unknown field", "address"},
	},
	{
		"topology value", "printf 'underlay: {subnet: 172.17.0.0}\\n' > /tmp/t.yml", "weft lab up -f /tmp/t.yml",
		[]string{"underlay.subnet", "172.17.0.0", "a subnet such as"},
	},
	{
		"network configuration", "", `echo '{"Network":"172.16.0.0/33"}' | weft network apply -f - --etcd-endpoints=http://127.0.0.1:2379`,
		[]string{"Network", "172.16.0.0/33"},
	},
}

// listen lets another program take a port.
func listen(port string) string {
	return "(busybox nc -ll -p " + port + " -e true >/dev/null 2>&1 </dev/null &) ; " + until("ss -Hltn sport = :"+port+" | grep -q .")
}

// until waits up to ten seconds for a command to succeed.
func until(command string) string {
	return "for try in $(seq 200); do " + command + " && exit 0; busybox usleep 50000; done; exit 1"
}

// TestWrongUse runs programs as they should not be: each says so in one line, fails, and leaves nothing behind.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	l, err := lab.Up(t.Context(), topology.HostsOnly(len(wrongs)), lab.Options{
		Name: labName("wrong"), HostsOnly: true, Attached: true, Bin: bin, Self: bin + "/weft",
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Lab: l}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	for i, w := range wrongs {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			host := fmt.Sprintf("h%d", i+1)
			if strings.HasPrefix(w.command, asUser) && os.Geteuid() != 0 {
				// There is one user in a lab of an ordinary one. Without its capabilities root is as any other.
				w.before = "chmod 555 /var/lib"
				w.command = "setpriv --bounding-set=-all --inh-caps=-all " + strings.TrimPrefix(w.command, asUser)
			}
			if w.before != "" {
				c.must(t, host, w.before)
			}
			before := c.traces(t, host)
			r := c.run(t.Context(), host, "sh", "-c", w.command)
			checkRefusal(t, w.command, r, w.want)
			if diff := cmp.Diff(before, c.traces(t, host)); diff != "" {
				t.Errorf("%s left something behind:\n%s", w.command, diff)
			}
		})
	}
}

// progress is what a program logs while it waits.
var progress = regexp.MustCompile(`(?m)^time=\S+ level=INFO .*\n`)

// checkRefusal wants one line on standard error, nothing on standard output and an exit code.
func checkRefusal(t *testing.T, command string, r result, want []string) {
	t.Helper()
	line := progress.ReplaceAllString(r.stderr, "")
	t.Logf("exit code %d after %s: %s", r.code, r.took.Round(10*time.Millisecond), strings.TrimSpace(line))
	if r.code <= 0 || r.code > 2 {
		t.Errorf("%s: exit code %d, want 1 or 2", command, r.code)
	}
	if r.stdout != "" {
		t.Errorf("%s: standard output:\n%s", command, r.stdout)
	}
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Errorf("%s: want one line, not\n%s", command, r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(line, w) {
			t.Errorf("%s: the line does not name %q: %s", command, w, line)
		}
	}
}

// traces is what a program could leave on a host. A lock file that the agent removed would not lock, so it stays.
func (c *cluster) traces(t *testing.T, host string) []string {
	t.Helper()
	return strings.Split(c.must(t, host, `
		echo processes; for p in /proc/[0-9]*; do
			pid=${p#/proc/}; parent=$(cut -d' ' -f4 $p/stat 2>/dev/null)
			[ $pid = $$ ] || [ "$parent" = $$ ] || [ -z "$parent" ] || tr '\0' ' ' < $p/cmdline 2>/dev/null && echo
		done
		echo sockets; ss -Hnltu
		echo links; ip -o link; ip -4 route show table all; ip rule
		echo rules; nft list ruleset
		echo sysctls; cat /proc/sys/net/ipv4/ip_forward
		echo mounts; cut -d' ' -f5- /proc/self/mountinfo
		echo files; find /run /tmp /var/lib /etc/weft -mindepth 1 ! -name agent.lock ! -path /run/weft ! -path /tmp/first | sort`), "\n")
}

// TestBrokenManifests gives kubectl manifests it cannot use.
func TestBrokenManifests(t *testing.T) {
	c, _ := borrow(t, nftables)
	before := c.inventory(t)
	for _, m := range []struct {
		name, manifest string
		want           []string
	}{
		{"no YAML", "apiVersion: v1\nkind: Service\n metadata: {name: x}\n", []string{"error parsing", "line 3"}},
		{"unknown kind", "apiVersion: v1\nkind: Sevrice\nmetadata: {name: x}\n", []string{"unknown-kind.yml"}},
		{
			"unknown field", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{prot: 80}]}\n",
			[]string{`unknown field "spec.ports[0].prot"`},
		},
		{
			"wrong value", "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: x}\nspec: {replicas: -1, selector: {a: b}, " +
				"template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: nginx}]}}}\n",
			[]string{"spec.replicas", "-1", "greater than or equal to 0"},
		},
		{
			"address outside the range", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: 10.1.2.3, ports: [{port: 80}]}\n",
			[]string{"spec.clusterIPs", "10.1.2.3"},
		},
	} {
		t.Run(m.name, func(t *testing.T) {
			file := "/tmp/" + strings.ReplaceAll(m.name, " ", "-") + ".yml"
			if err := c.WriteFile(t.Context(), master, file, []byte(m.manifest)); err != nil {
				t.Fatal(err)
			}
			checkRefusal(t, "kubectl create", c.run(t.Context(), master, "kubectl", "create", "-f", file), m.want)
		})
	}
	if diff := cmp.Diff(before, c.inventory(t)); diff != "" {
		t.Errorf("a refused manifest changed something:\n%s", diff)
	}
}
