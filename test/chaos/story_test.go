package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/internal/netstate"
	"weft/test/labtest"
)

const (
	master = "kube-master"
	store  = "store"
	etcd   = "etcd"
)

// story is a lab with traffic, and what was measured.
type story struct {
	still *labtest.Still
	begun time.Time

	*lab.Lab
	t     *testing.T
	rnd   *rand.Rand
	nodes []*node
	tr    *traffic
	table *table
	etcd  *clientv3.Client
	dirs  int // restored data directories so far
}

// node is a host under injury with its pod.
type node struct {
	name, address string
	pod           end
	inPod         string // how the pod's namespace is entered on the host
	veth          string // the host's end
	host, inside  *look
	peers         []string // what its routes lead to, as 172.16.78.0
}

// begin brings the lab up: a master, a host with the distribution's etcd for the leases, three nodes with a pod each.
func begin(t *testing.T, mode, attach string) *story {
	if _, err := os.Stat("/usr/bin/etcd"); err != nil {
		t.Skip("etcd is not installed: apt-get install etcd-server etcd-client")
	}
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (-seed %d does the same again)", n, n)
	top := topology.Default()
	top.Hosts = append(top.Hosts,
		topology.Host{Name: "kube-node3", Address: netip.MustParseAddr("172.17.42.33"), Role: topology.Node, Subnet: netip.MustParsePrefix("172.16.90.0/24")},
		topology.Host{Name: store, Address: netip.MustParseAddr("172.17.42.40"), Role: topology.Plain})
	top.Cluster.ProxyMode, top.Cluster.Attach = mode, attach
	l, err := lab.Up(t.Context(), top, lab.Options{
		Name: fmt.Sprintf("chaos-%d", os.Getpid()), Attached: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: 2 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &story{Lab: l, t: t, rnd: rand.New(rand.NewPCG(n, 1)), table: &table{}, still: labtest.NewStill(t), begun: time.Now()}
	t.Cleanup(func() {
		if t.Failed() {
			s.logs()
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	s.moveLeases()
	s.pods()
	return s
}

// moveLeases has the agents use an etcd of their own, apart from the API's, so that the one can fail without the other.
func (s *story) moveLeases() {
	s.startEtcd("/var/lib/etcd0")
	s.etcd = s.client()
	s.must(store, "weft network apply -f /etc/weft/net-conf.json --wait=60s --etcd-endpoints=http://172.17.42.40:2379")
	for _, h := range s.Topology().With(topology.Node) {
		if err := s.Restart(s.t.Context(), h.Name, lab.Agent, "--etcd-endpoints=http://172.17.42.40:2379"); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *story) startEtcd(dir string) {
	s.t.Helper()
	const url = "http://172.17.42.40:2379"
	if err := s.Run(s.t.Context(), store, etcd, "etcd", "--name=store", "--data-dir="+dir, "--listen-client-urls="+url+",http://127.0.0.1:2379",
		"--advertise-client-urls="+url, "--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=store=http://127.0.0.1:2380", "--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync"); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("etcd answers", 20*time.Second, func() error {
		_, err := s.sh(store, "ETCDCTL_API=3 etcdctl --dial-timeout=1s --command-timeout=1s get ready")
		return err
	})
}

const manifest = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec:
  nodeName: %[2]s
  containers: [{name: c, image: busybox, command: [sleep, "36000"]}]
---
`

// pods starts a pod on each node and the traffic between them.
func (s *story) pods() {
	var all strings.Builder
	hosts := s.Topology().With(topology.Node)
	for i, h := range hosts {
		fmt.Fprintf(&all, manifest, fmt.Sprint("pod", i+1), h.Name)
	}
	if err := s.WriteFile(s.t.Context(), master, "/root/pods.yaml", []byte(all.String())); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl("apply", "-f", "/root/pods.yaml")
	s.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	var ends []end
	for i, h := range hosts {
		pid, err := s.PID(s.t.Context(), h.Name)
		if err != nil {
			s.t.Fatal(err)
		}
		name := fmt.Sprint("pod", i+1)
		path := s.must(h.Name, fmt.Sprintf(`grep -A6 '"Name": "%s"' /run/weft/attachments.json | grep -o '/[^"]*' | tail -1`, name))
		n := &node{name: h.Name, address: h.Address.String(), inPod: "nsenter --net=" + path + " "}
		ip := netip.MustParseAddr(s.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}"))
		n.pod = end{name: name, netns: fmt.Sprintf("/proc/%d/root%s", pid, path), ip: ip}
		n.veth = s.must(h.Name, "ip -o link | grep -o 'veth[0-9a-f]*@' | head -1 | tr -d @")
		s.openLooks(n, fmt.Sprintf("/proc/%d/ns/net", pid))
		for _, other := range hosts {
			if other.Name != h.Name {
				n.peers = append(n.peers, other.Subnet.Addr().String())
			}
		}
		s.nodes = append(s.nodes, n)
		ends = append(ends, n.pod)
	}
	s.tr = talk(s.t, ends)
	if err := s.tr.settled(10 * time.Second); err != nil {
		s.t.Fatal(err)
	}
	s.remember()
}

func (s *story) openLooks(n *node, path string) {
	mode := s.Topology().Cluster.ProxyMode
	var rules func() (string, error)
	if mode != "nftables" {
		rules = func() (string, error) {
			return s.sh(n.name, `(iptables-save; ip6tables-save) | grep -v '^#' | sed 's/\[[0-9:]*\]//' | sort`)
		}
	}
	n.host = newLook(s.t, path, parametersOf(s.must(n.name, "weft state")), mode == "nftables", rules)
	n.inside = newLook(s.t, n.pod.netns, netstate.New(), false, nil)
}

// remember takes the state of all nodes as what must come back.
func (s *story) remember() {
	s.t.Helper()
	for _, n := range s.nodes {
		for _, l := range []*look{n.host, n.inside} {
			if err := l.remember(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// trial is what one injury showed.
type trial struct {
	took   time.Duration
	lost   int // packets, of all pairs
	most   int // packets, of the pair that lost most
	resets int
}

// injure runs the command on the node and measures how long it takes until everything on the node and in its pod is as before, seen from
// outside. The time begins before the command does.
func (s *story) injure(kind string, n *node, command string, limit time.Duration) {
	s.t.Helper()
	ctx := s.t.Context()
	host, inside := n.host.watch(ctx), n.inside.watch(ctx)
	defer host.end()
	defer inside.end()
	resets, _ := s.tr.broken()
	out, err := s.sh(n.name, "date +%s%N; "+command+"; e=$?; date +%s%N; exit $e")
	lines := strings.Split(out, "\n")
	var ns, after int64
	_, serr := fmt.Sscan(lines[0]+" "+lines[len(lines)-1], &ns, &after)
	if serr != nil || err != nil {
		s.t.Errorf("%s on %s: %s: %v %s", kind, n.name, command, err, out)
		return
	}
	begun, injured := time.Unix(0, ns), time.Unix(0, after)
	var at time.Time
	s.eventually(kind+" on "+n.name, limit, func() error {
		a, ok1 := host.since(begun, injured)
		b, ok2 := inside.since(begun, injured)
		if !ok1 || !ok2 {
			return fmt.Errorf("not as before: %s %s", host.last(), inside.last())
		}
		if at = a; b.After(a) {
			at = b
		}
		return nil
	})
	s.measure(kind, begun, at.Sub(begun), resets)
}

// measure adds a trial once its packets have arrived or not.
func (s *story) measure(kind string, begun time.Time, took time.Duration, resets int) (lost int) {
	s.t.Helper()
	if err := s.tr.settled(20 * time.Second); err != nil {
		s.t.Errorf("%s: %v", kind, err)
	}
	r := trial{took: max(took, 0)}
	r.lost, r.most = s.tr.lost(begun, time.Now().Add(-40*time.Millisecond))
	now, _ := s.tr.broken()
	r.resets = now - resets
	s.table.add(kind, r)
	s.t.Logf("%s %-44s %8.1f ms, %d packets lost, at most %d of a pair", begun.Format(time.StampMilli), kind, float64(r.took.Microseconds())/1000, r.lost, r.most)
	return r.lost
}

func (s *story) one() *node { return s.nodes[s.rnd.IntN(len(s.nodes))] }

func (s *story) sh(host, command string) (string, error) {
	ctx, stop := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer stop()
	out, err := s.Exec(ctx, host, "sh", "-c", command)
	return strings.TrimSpace(out), err
}

func (s *story) must(host, command string) string {
	s.t.Helper()
	out, err := s.sh(host, command)
	if err != nil {
		s.t.Fatalf("%s: %s: %v\n%s", host, command, err, out)
	}
	return out
}

func (s *story) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.Kubectl(s.t.Context(), args...)
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (s *story) eventually(what string, limit time.Duration, check func() error) {
	s.t.Helper()
	limit *= labtest.Slack
	begun := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(begun) > limit {
			s.t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *story) logs() {
	for _, h := range s.Topology().With(topology.Node) {
		text, err := os.ReadFile(s.LogFile(h.Name, lab.Agent))
		if err != nil {
			s.t.Log(err)
			continue
		}
		lines := strings.Split(string(text), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "msg=applied") })
		s.t.Logf("%s agent:\n%s", h.Name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
