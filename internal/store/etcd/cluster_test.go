package etcd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/store/etcd/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// member is one etcd of a cluster, on a host of its own: a network namespace joined to the test's by a bridge.
type member struct {
	t    *testing.T
	name string
	ip   string
	data string
	ns   *netns.NS
	args []string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func (m *member) url() string { return "http://" + m.ip + ":2379" }

func command(t *testing.T, text string) {
	t.Helper()
	words := strings.Fields(text)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", text, err, out)
	}
}

// startCluster runs n members; the test's own host is 10.9.NET.254.
func startCluster(t *testing.T, net, n int) []*member {
	t.Helper()
	netns.Need(t)
	binary := etcdtest.Binary(t)
	bridge := fmt.Sprintf("br%d", net)
	command(t, "ip link add "+bridge+" type bridge")
	t.Cleanup(func() { command(t, "ip link del "+bridge) })
	command(t, fmt.Sprintf("ip addr add 10.9.%d.254/24 dev %s", net, bridge))
	command(t, "ip link set "+bridge+" up")
	var all []*member
	var peers []string
	for i := range n {
		m := &member{t: t, name: fmt.Sprintf("m%d", i), ip: fmt.Sprintf("10.9.%d.%d", net, i+1), data: filepath.Join(t.TempDir(), "etcd")}
		m.join(bridge, fmt.Sprintf("v%d-%d", net, i))
		peers = append(peers, fmt.Sprintf("%s=http://%s:2380", m.name, m.ip))
		all = append(all, m)
	}
	for _, m := range all {
		m.args = []string{
			binary, "--name", m.name, "--data-dir", m.data, "--listen-client-urls", m.url(), "--advertise-client-urls", m.url(),
			"--listen-peer-urls", "http://" + m.ip + ":2380", "--initial-advertise-peer-urls", "http://" + m.ip + ":2380",
			"--initial-cluster", strings.Join(peers, ","), "--heartbeat-interval", "100", "--election-timeout", "1000",
		}
		m.start()
	}
	eventually(t, "the cluster has a leader", func() bool { return leader(t, all) != nil })
	return all
}

// join makes the member's namespace and its link to the bridge.
func (m *member) join(bridge, link string) {
	m.t.Helper()
	ns, err := netns.New("")
	if err != nil {
		m.t.Fatal(err)
	}
	m.ns = ns
	m.t.Cleanup(func() { _ = ns.Close() })
	command(m.t, fmt.Sprintf("ip link add %s type veth peer name e%s", link, link))
	command(m.t, fmt.Sprintf("ip link set %s master %s up", link, bridge))
	command(m.t, fmt.Sprintf("ip link set e%s netns %s", link, ns.Path()))
	m.inside(fmt.Sprintf("ip addr add %s/24 dev e%s", m.ip, link))
	m.inside("ip link set e" + link + " up")
}

// inside runs a command on the member's host.
func (m *member) inside(text string) {
	m.t.Helper()
	if err := m.ns.Do(func() error {
		words := strings.Fields(text)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", text, err, out)
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) start() {
	m.t.Helper()
	if err := m.ns.Do(func() error {
		m.cmd = exec.Command(m.args[0], m.args[1:]...)
		m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
		return m.cmd.Start()
	}); err != nil {
		m.t.Fatal(err)
	}
	cmd := m.cmd
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func (m *member) kill() {
	_ = m.cmd.Process.Signal(syscall.SIGKILL)
	_ = m.cmd.Wait()
}

// vanish drops every packet from and to the member without a word; heal ends it, and isolate.
func (m *member) vanish() { m.drop("") }

// isolate drops only what goes between the members.
func (m *member) isolate() { m.drop("tcp sport 2380 drop; tcp dport 2380 drop;") }

func (m *member) drop(rules string) {
	m.t.Helper()
	policy := "accept"
	if rules == "" {
		policy = "drop"
	}
	text := ""
	for _, hook := range []string{"input", "output"} {
		text += fmt.Sprintf("add chain inet cut %s { type filter hook %s priority 0; policy %s; }\n", hook, hook, policy)
		for rule := range strings.SplitSeq(strings.TrimSuffix(rules, ";"), ";") {
			if rule != "" {
				text += fmt.Sprintf("add rule inet cut %s %s\n", hook, rule)
			}
		}
	}
	file := filepath.Join(m.t.TempDir(), "cut.nft")
	if err := os.WriteFile(file, []byte("add table inet cut\n"+text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.inside("nft -f " + file)
}

func (m *member) heal() { m.inside("nft delete table inet cut") }

// leader finds the member that the members name as such, nil when there is none.
func leader(t *testing.T, all []*member) *member {
	t.Helper()
	for _, m := range all {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.url()}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
		r, err := c.Status(ctx, m.url())
		stop()
		_ = c.Close()
		if err == nil && r.Leader != 0 && r.Leader == r.Header.MemberId {
			return m
		}
	}
	return nil
}

func urls(all []*member) []string {
	var out []string
	for _, m := range all {
		out = append(out, m.url())
	}
	return out
}

func openAll(t *testing.T, all []*member) *Client {
	t.Helper()
	c, err := Open(Config{Endpoints: urls(all)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestCluster drives two hosts over a cluster of three whose members die, are cut off and vanish: what one of them leases the other
// learns in seconds all the same, and nobody loses its subnet.
func TestCluster(t *testing.T) {
	t.Parallel()
	all := startCluster(t, 1, 3)
	apply(t, openAll(t, all))
	k1, _ := run(t, openAll(t, all), want(1))
	own1 := own(t, k1)
	peer := 10
	// news makes a new lease and waits until the host knows it.
	news := func(what string, at []*member, bound time.Duration) {
		t.Helper()
		peer++
		c := openAll(t, at)
		begun := time.Now()
		_, end := run(t, c, want(peer))
		eventually(t, what+": news arrive", func() bool {
			return slices.ContainsFunc(k1.Peers(), func(l api.Lease) bool { return l.PublicIP == want(peer).Self.PublicIP })
		})
		d := time.Since(begun)
		t.Logf("%s: news after %s", what, d.Round(time.Millisecond))
		if d > bound {
			t.Errorf("%s: it took %s, want at most %s", what, d, bound)
		}
		if !held(k1, own1.Subnet) {
			t.Errorf("%s: own is %+v", what, k1.Status())
		}
		end()
	}
	news("all well", all, 30*time.Second)

	l := leader(t, all)
	l.kill()
	news("leader killed", others(all, l), 45*time.Second)
	l.start()
	eventually(t, "a leader", func() bool { return leader(t, all) != nil })

	for _, m := range all { // one after the other, so the one with the watch is among them
		m.isolate()
		news("minority "+m.name, others(all, m), 45*time.Second)
		m.heal()
	}
	eventually(t, "a leader", func() bool { return leader(t, all) != nil })
	for _, m := range all {
		m.vanish()
		news("silent "+m.name, others(all, m), 45*time.Second)
		m.heal()
	}
}

func others(all []*member, not *member) []*member {
	return slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m == not })
}

// TestSnapshotRestore puts an earlier snapshot back with etcdctl, as an operator would: another cluster with a lower revision under the
// same address. Leases and later changes are there again, and nobody moved.
func TestSnapshotRestore(t *testing.T) {
	t.Parallel()
	all := startCluster(t, 2, 1)
	m := all[0]
	apply(t, openAll(t, all))
	k1, _ := run(t, openAll(t, all), want(1))
	own1 := own(t, k1)
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	etcdctl := func(args ...string) {
		t.Helper()
		cmd := exec.Command("etcdctl", append([]string{"--endpoints", m.url()}, args...)...)
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("etcdctl %s: %v\n%s", args, err, out)
		}
	}
	etcdctl("snapshot", "save", snapshot)
	k2, _ := run(t, openAll(t, all), want(2))
	own2 := own(t, k2)
	eventually(t, "both see each other", func() bool { return len(k1.Peers()) == 1 && len(k2.Peers()) == 1 })
	before := k1.Status().Revision
	for range 20 {
		etcdctl("put", "/other", "x")
	}
	m.kill()
	if err := os.RemoveAll(m.data); err != nil {
		t.Fatal(err)
	}
	etcdctl("snapshot", "restore", snapshot, "--data-dir", m.data, "--name", m.name, "--initial-cluster", m.name+"=http://"+m.ip+":2380",
		"--initial-advertise-peer-urls", "http://"+m.ip+":2380", "--initial-cluster-token", "restored")
	m.start()
	eventually(t, "the second host puts its lease back", func() bool {
		s, err := openAll(t, all).List(t.Context())
		return err == nil && s.Revision < before+20 && len(s.Entries) == 3
	})
	eventually(t, "both hold what they had and see each other", func() bool {
		return held(k1, own1.Subnet) && held(k2, own2.Subnet) && len(k1.Peers()) == 1 && len(k2.Peers()) == 1
	})
	k3, _ := run(t, openAll(t, all), want(3))
	own(t, k3)
	eventually(t, "later leases are seen", func() bool { return len(k1.Peers()) == 2 && len(k2.Peers()) == 2 })
}
