package settings

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// onCommandLine is a configuration as "weft agent" makes it of flags.
func onCommandLine(t *testing.T, args ...string) Config {
	t.Helper()
	c := Config{level: new(slog.LevelVar)}
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	c.Flags(f)
	if err := f.Parse(append([]string{"--node-name=n", "--config=agent.yaml"}, args...)); err != nil {
		t.Fatal(err)
	}
	c.given = givenFlags(f)
	return c
}

func TestFlagBeforeFileBeforeDefault(t *testing.T) {
	c := onCommandLine(t, "--edge-check=false", "--etcd-endpoints=http://a:2379,http://b:2379")
	got, err := c.withFile([]byte("proxy-mode: iptables\nedge-check: true\nnon-masquerade-cidr: [10.0.0.0/8, fd00::/8]\nverbose: 1\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.ProxyMode != "iptables" || got.EdgeCheck || len(got.Masquerade.facts.NonMasquerade) != 2 || len(got.EtcdEndpoints) != 2 || got.Attach != "routed" {
		t.Errorf("%+v", got.Config)
	}
	got.setLevel()
	if got.level.Level() != slog.LevelDebug {
		t.Error("verbose: 1 changes no level")
	}
	from := map[string]string{}
	for _, s := range (&Live{now: got}).List().Settings {
		from[s.Name] = s.From + " " + strings.Join(s.Values, ",")
	}
	for name, want := range map[string]string{
		"proxy-mode": "file iptables", "edge-check": "flag false", "attach": "default routed", "non-masquerade-cidr": "file 10.0.0.0/8,fd00::/8",
		"etcd-endpoints": "flag http://a:2379,http://b:2379",
	} {
		if from[name] != want {
			t.Errorf("%s: %s, want %s", name, from[name], want)
		}
	}
}

func TestFileIsTakenUpWholeOrNot(t *testing.T) {
	c := onCommandLine(t, "--iface=eth0")
	for text, want := range map[string]string{
		"proxy-mode: ebpf":                               "agent.yaml:1: --proxy-mode=ebpf: this version has no such mode",
		"proxy-mode: [nftables]":                         "agent.yaml:1: proxy-mode: nftables: it takes one value, not a list",
		"ip-masq: maybe":                                 `agent.yaml:1: ip-masq: maybe: strconv.ParseBool`,
		"kind: KubeProxyConfiguration\nmode: nftables":   "agent.yaml:1: kind: KubeProxyConfiguration: this is another program's configuration",
		"edge-check: true\nproxymode: x":                 "agent.yaml:2: proxymode: there is no such setting, do you mean proxy-mode",
		"proxy_mode: x":                                  "do you mean proxy-mode",
		"\nmasquerade-mark-bit: 99":                      "agent.yaml:2: --masquerade-mark-bit=99",
		"non-masquerade-cidr: 10.0.0.1/8":                "agent.yaml:1: --non-masquerade-cidr=10.0.0.1/8",
		"config: other":                                  "agent.yaml:1: config: a configuration file names no other",
		"iface: {a: b}":                                  "agent.yaml:1: iface: want a value",
		"mtu-probe: soon":                                "agent.yaml:1: mtu-probe: soon",
		"ip-masq: false\nnon-masquerade-cidr: 1.0.0.0/8": "agent.yaml:2: --non-masquerade-cidr=1.0.0.0/8: with --ip-masq=false",
	} {
		if _, err := c.withFile([]byte(text), nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestRestartOnlySettingsStay: what can't change live is named and stays, the rest is taken up.
func TestRestartOnlySettingsStay(t *testing.T) {
	c := onCommandLine(t)
	first, err := c.withFile([]byte("iface: eth0\nproxy-mode: nftables\netcd-password: old\netcd-username: u\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	next, err := c.withFile([]byte("iface: eth1\nproxy-mode: userspace\netcd-password: new\netcd-username: u\n"), first)
	if err != nil {
		t.Fatal(err)
	}
	if next.Underlay.Ifaces[0] != "eth0" || next.ProxyMode != "userspace" || next.EtcdPassword != "old" {
		t.Errorf("%+v", next.Config)
	}
	want := []string{
		"etcd-password: (hidden) in agent.yaml, (hidden) in force", "iface: eth1 in agent.yaml, eth0 in force",
	}
	if !slices.Equal(next.pending, want) {
		t.Errorf("pending %q, want %q", next.pending, want)
	}
	text := strings.Join((&Live{now: next}).List().Warnings(), "\n")
	if !strings.Contains(text, "needs restart: iface") || strings.Contains(text, "new") {
		t.Error(text)
	}
	back, err := c.withFile([]byte("iface: eth0\netcd-password: old\netcd-username: u\n"), next)
	if err != nil || len(back.pending) != 0 || back.ProxyMode != "nftables" {
		t.Errorf("%v: %q, mode %s: a key that goes is at its default again", err, back.pending, back.ProxyMode)
	}
}

// TestLiveFlagsExist and are what the facts are made of.
func TestLiveFlagsExist(t *testing.T) {
	var c Config
	f := flagSet(&c)
	for _, name := range append(slices.Clone(liveFlags), secretFlags...) {
		if f.Lookup(name) == nil {
			t.Errorf("there is no flag --%s", name)
		}
	}
}

func TestConfigFileAtStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	c := onCommandLine(t, "--config="+path)
	if _, err := c.AtStart(); err == nil || !strings.Contains(err.Error(), "--config="+path) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("proxy-mode: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.AtStart()
	if err != nil || got.ProxyMode != "none" || string(got.fileData) != "proxy-mode: none\n" {
		t.Errorf("%+v, %v", got, err)
	}
}
