package masq_test

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/kernel/netns"
	"weft/internal/masq"
	"weft/internal/xt"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// node1 is the walkthrough's first node, with an IPv6 network beside.
func node1(mode masq.Mode) masq.Config {
	return masq.Config{
		Mode:      mode,
		Network:   netip.MustParsePrefix("172.16.0.0/12"),
		Subnet:    netip.MustParsePrefix("172.16.28.0/24"),
		NetworkV6: netip.MustParsePrefix("fd00:16::/48"),
		SubnetV6:  netip.MustParsePrefix("fd00:16:0:28::/64"),
		Bridge:    "docker0",
	}
}

func with(c masq.Config, f func(*masq.Config)) masq.Config { f(&c); return c }

func configs() map[string]masq.Config {
	return map[string]masq.Config{
		"none":     node1(masq.None),
		"outside":  node1(masq.Outside),
		"pods":     node1(masq.Pods),
		"routed":   with(node1(masq.Pods), func(c *masq.Config) { c.Bridge = "" }),
		"underlay": with(node1(masq.Outside), func(c *masq.Config) { c.Underlay = prefixes("172.17.0.0/16", "10.0.0.0/8"); c.Forward = true }),
		"v4only": with(node1(masq.Outside), func(c *masq.Config) {
			c.NetworkV6, c.SubnetV6, c.KeepPorts = netip.Prefix{}, netip.Prefix{}, true
		}),
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestGolden(t *testing.T) {
	netns.Need(t)
	for name, c := range configs() {
		rules := masq.XT(c)
		file := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), rules.String()); d != "" {
			t.Errorf("%s (-golden +got):\n%s", file, d)
		}
		for _, program := range []string{"iptables-nft-restore", "iptables-legacy-restore", "ip6tables-nft-restore", "ip6tables-legacy-restore"} {
			cmd := exec.Command(program, "--noflush", "--test")
			cmd.Stdin = strings.NewReader(xt.RestoreInput(xt.Diff(rules, xt.Ruleset{}), strings.HasPrefix(program, "ip6")))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", name, program, err, out)
			}
		}
	}
}

// TestWalkthrough compares with the article's line, in our chain.
func TestWalkthrough(t *testing.T) {
	rules := masq.XT(node1(masq.Pods))
	if want := "-A WEFT-POSTROUTING -s 172.16.28.0/24 ! -o docker0 -j MASQUERADE\n"; !strings.Contains(rules.V4.String(), want) {
		t.Errorf("want %s in\n%s", want, rules)
	}
}

// TestDecisions is what the rules do to packets that leave by a device.
func TestDecisions(t *testing.T) {
	all := configs()
	for _, c := range []struct {
		config, src, dst, out string
		mark                  uint32
		want                  bool // masqueraded
	}{
		{"outside", "172.16.28.5", "8.8.8.8", "eth0", 0, true},
		{"outside", "172.16.28.5", "172.16.78.9", "flannel.1", 0, false},
		{"outside", "172.16.28.5", "172.16.28.9", "docker0", 0, false},
		{"outside", "172.16.78.9", "172.16.28.5", "docker0", 0, false},
		{"outside", "192.0.2.1", "172.16.28.5", "docker0", 0, false},
		{"outside", "192.0.2.1", "172.16.78.9", "flannel.1", 0, true},
		{"outside", "172.16.28.5", "224.0.0.251", "eth0", 0, false},
		{"outside", "172.16.28.5", "8.8.8.8", "eth0", 0x4000, false},
		{"outside", "192.0.2.1", "8.8.8.8", "eth0", 0, false},
		{"outside", "fd00:16:0:28::5", "2001:db8::1", "eth0", 0, true},
		{"outside", "fd00:16:0:28::5", "fd00:16:0:78::9", "flannel-v6.1", 0, false},
		{"outside", "fd00:16:0:28::5", "ff02::fb", "eth0", 0, false},
		{"none", "172.16.28.5", "8.8.8.8", "eth0", 0, false},
		{"pods", "172.16.28.5", "8.8.8.8", "eth0", 0, true},
		{"pods", "172.16.28.5", "172.16.78.9", "flannel.1", 0, true},
		{"pods", "172.16.28.5", "172.16.28.9", "docker0", 0, false},
		{"routed", "172.16.28.5", "172.16.78.9", "flannel.1", 0, true},
		{"routed", "172.16.28.5", "172.16.28.9", "veth1", 0, false},
		// the underlay lies inside the pod network: hosts are not pods
		{"underlay", "172.16.28.5", "172.17.42.30", "eth0", 0, true},
		{"underlay", "172.17.42.31", "172.17.42.30", "eth0", 0, false},
		{"underlay", "172.17.42.31", "172.16.78.9", "flannel.1", 0, false},
		{"underlay", "172.17.42.31", "8.8.8.8", "eth0", 0, false},
		{"underlay", "172.16.28.5", "172.16.78.9", "flannel.1", 0, false},
		{"underlay", "172.16.28.5", "10.1.2.3", "eth0", 0, true},
	} {
		rules := masq.XT(all[c.config])
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		got := false
		for _, hit := range rules.Family(dst.Is6()).Walk("nat", "POSTROUTING", xt.Packet{
			Proto: "tcp", Src: netip.AddrPortFrom(src, 1234), Dst: netip.AddrPortFrom(dst, 80), Out: c.out, Mark: c.mark,
		}) {
			if _, ok := hit.Rule.Target.(xt.Masquerade); ok {
				got = true
			}
		}
		if got != c.want {
			t.Errorf("%s: %s -> %s out %s mark 0x%x: masqueraded %v, want %v", c.config, c.src, c.dst, c.out, c.mark, got, c.want)
		}
	}
}
