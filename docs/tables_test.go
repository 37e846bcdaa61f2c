package docs_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"weft/internal/agent/settings"
	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/internal/lease"
)

// rows returns the cells of the table after a marker, without its head.
func rows(t *testing.T, path, marker string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t, path), "<!-- "+marker+" -->\n")
	if !ok {
		t.Fatalf("%s: no marker %q", path, marker)
	}
	var out [][]string
	for line := range strings.Lines(strings.TrimLeft(rest, "\n")) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		out = append(out, cells)
	}
	if len(out) < 3 {
		t.Fatalf("%s: no table after %q", path, marker)
	}
	return out[2:]
}

// TestAgentFlags compares the flags of the page with those of the program.
func TestAgentFlags(t *testing.T) {
	var want []string
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	new(settings.Config).Flags(f)
	f.VisitAll(func(f *pflag.Flag) { want = append(want, "--"+f.Name) })
	flags := regexp.MustCompile("`(--[a-z0-9-]+)`")
	var got []string
	_, text, _ := strings.Cut(page(t, "operations.md"), "<!-- flags of weft agent -->")
	text, _, _ = strings.Cut(text, "\n\n") // the table
	for _, m := range flags.FindAllStringSubmatch(text, -1) {
		got = append(got, m[1])
	}
	same(t, "operations.md: flags of weft agent", got, want)
}

// TestLabPage compares the topology fields and commands of the page with those of the program.
func TestLabPage(t *testing.T) {
	var want, got []string
	for name, x := range map[string]any{
		"": topology.Topology{}, "underlay.": topology.Underlay{}, "hosts[].": topology.Host{}, "cluster.": topology.Cluster{},
		"cluster.backend.": topology.Backend{},
	} {
		for field := range reflect.TypeOf(x).Fields() {
			tag, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if !slices.Contains([]string{"underlay", "hosts", "cluster", "backend"}, tag) {
				want = append(want, name+tag)
			}
		}
	}
	for _, r := range rows(t, "lab.md", "fields of topology.yaml") {
		got = append(got, r[0])
	}
	same(t, "lab.md: fields", got, want)

	commands := []string{"demo", "graph"} // mounted by the command line
	for _, c := range lab.Command().Commands() {
		commands = append(commands, c.Name())
	}
	got = nil
	for _, r := range rows(t, "lab.md", "commands of weft lab") {
		name, _, _ := strings.Cut(strings.Trim(r[0], "`"), " ")
		got = append(got, name)
	}
	same(t, "lab.md: commands", got, commands)
}

// TestNetConfExamples reads every network configuration that a page shows.
func TestNetConfExamples(t *testing.T) {
	example := regexp.MustCompile("(?s)```json\n(\\{.*?\\})\n```")
	seen := 0
	for path, text := range pages(t) {
		for _, m := range example.FindAllStringSubmatch(text, -1) {
			seen++
			_, warnings, err := lease.ParseConfig([]byte(m[1]))
			if err != nil || len(warnings) > 0 {
				t.Errorf("%s: %s: %v %v", path, m[1], err, warnings)
			}
		}
	}
	if seen < 3 {
		t.Errorf("%d examples", seen)
	}
}

// TestTopologyExamples reads every topology that a page shows.
func TestTopologyExamples(t *testing.T) {
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	seen := 0
	for path, text := range pages(t) {
		for _, m := range example.FindAllStringSubmatch(text, -1) {
			seen++
			if _, err := topology.Parse([]byte(m[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if seen < 3 {
		t.Errorf("%d examples", seen)
	}
}

// TestCommandExamples checks that the commands in the pages' console blocks are commands of weft.
func TestCommandExamples(t *testing.T) {
	known := map[string]bool{
		"agent": true, "status": true, "state": true, "diff": true, "explain": true, "network": true, "capture": true,
		"graph": true, "lab": true, "docker-opts": true, "cleanup": true, "debug": true, "completion": true, "version": true, "help": true,
	}
	labs := map[string]bool{"demo": true, "graph": true}
	each := func(c *cobra.Command, to map[string]bool) {
		for _, sub := range c.Commands() {
			to[sub.Name()] = true
		}
	}
	each(lab.Command(), labs)
	word := regexp.MustCompile(`(?m)^(?:\$ |# |\[root@[\w-]+ ~\]# |)(?:bin/)?weft ([\w-]+)(?: (?:--name \w+ )?([a-z]+))?`)
	for path, text := range pages(t) {
		fenced := false
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
			}
			m := word.FindStringSubmatch(line)
			if !fenced || m == nil {
				continue
			}
			if !known[m[1]] || m[1] == "lab" && m[2] != "" && !labs[m[2]] {
				t.Errorf("%s: %q is no command", path, strings.TrimSpace(line))
			}
		}
	}
}

// same compares two lists without regard to order and repetition.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	for _, x := range want {
		if !slices.Contains(got, x) {
			t.Errorf("%s: %s is missing on the page", what, x)
		}
	}
	for _, x := range got {
		if !slices.Contains(want, x) {
			t.Errorf("%s: %s is on the page, but not in the program", what, x)
		}
	}
}

// TestServicesTable: the scenes that the page names are those of the packet-flow table, all of them.
func TestServicesTable(t *testing.T) {
	source, err := os.ReadFile("../test/flows/scenes_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, m := range regexp.MustCompile(`(?m)^\t\{name: "([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	for _, row := range rows(t, "services.md", "services in every mode") {
		for scene := range strings.SplitSeq(row[len(row)-1], "; ") {
			if scene != "" && !slices.Contains(got, scene) {
				got = append(got, scene)
			}
		}
	}
	same(t, "services.md: scenes", got, want)
}

// kubeProxyFlags are those of kube-proxy v1.36.3, as its --help lists them.
const kubeProxyFlags = `bind-address bind-address-hard-fail boot-id-file cleanup cluster-cidr config config-sync-period conntrack-max-per-core
	conntrack-min conntrack-tcp-be-liberal conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established conntrack-udp-timeout
	conntrack-udp-timeout-stream detect-local-mode feature-gates healthz-bind-address help hostname-override init-only
	iptables-localhost-nodeports iptables-masquerade-bit iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs
	ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout
	kube-api-burst kube-api-content-type kube-api-qps kubeconfig log-flush-frequency log-json-info-buffer-size log-json-split-stream
	log-text-info-buffer-size log-text-split-stream logging-format machine-id-file masquerade-all master metrics-bind-address
	nodeport-addresses oom-score-adj pod-bridge-interface pod-interface-name-prefix profiling proxy-mode
	show-hidden-metrics-for-version v version vmodule write-config-to`

// kubeProxyFields are those of its configuration file, kubeproxy.config.k8s.io/v1alpha1, but for Windows'.
const kubeProxyFields = `bindAddress bindAddressHardFail clientConnection clusterCIDR configSyncPeriod conntrack.maxPerCore conntrack.min
	conntrack.tcpBeLiberal conntrack.tcpCloseWaitTimeout conntrack.tcpEstablishedTimeout conntrack.udpStreamTimeout conntrack.udpTimeout
	detectLocal detectLocalMode enableProfiling featureGates healthzBindAddress hostnameOverride iptables.localhostNodePorts
	iptables.masqueradeAll iptables.masqueradeBit iptables.minSyncPeriod iptables.syncPeriod ipvs logging metricsBindAddress mode
	nftables.masqueradeAll nftables.masqueradeBit nftables.minSyncPeriod nftables.syncPeriod nodePortAddresses oomScoreAdj portRange
	showHiddenMetricsForVersion`

// TestKubeProxyFields: the same for the fields of its configuration file.
func TestKubeProxyFields(t *testing.T) {
	var got []string
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	new(settings.Config).Flags(f)
	words := func(cell string) []string {
		return strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune("`, ", r) })
	}
	for _, row := range rows(t, "migration/from-kube-proxy.md", "fields of KubeProxyConfiguration") {
		got = append(got, words(row[0])...)
		for _, ours := range words(row[1]) {
			if f.Lookup(ours) == nil && ours != "verbose" && ours != "none" {
				t.Errorf("%s: weft agent has no setting %s", row[0], ours)
			}
		}
	}
	same(t, "from-kube-proxy.md: fields of KubeProxyConfiguration", got, strings.Fields(kubeProxyFields))
}

// TestKubeProxyFlags: each of kube-proxy's flags is on the page once, and what is named for it is one of the agent's.
func TestKubeProxyFlags(t *testing.T) {
	var want, got []string
	for f := range strings.FieldsSeq(kubeProxyFlags) {
		want = append(want, "--"+f)
	}
	f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	new(settings.Config).Flags(f)
	flag := regexp.MustCompile("(--[a-z0-9-]+)")
	for _, row := range rows(t, "migration/from-kube-proxy.md", "flags of kube-proxy") {
		got = append(got, flag.FindAllString(row[0], -1)...)
		for _, ours := range flag.FindAllString(row[1], -1) {
			if name := ours[2:]; f.Lookup(name) == nil && name != "verbose" && name != "config" && name != "help" {
				t.Errorf("%s: weft agent has no flag %s", row[0], ours)
			}
		}
	}
	same(t, "from-kube-proxy.md: flags of kube-proxy", got, want)
}
