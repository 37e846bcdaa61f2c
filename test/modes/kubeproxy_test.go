package modes

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/test/labtest"
)

const kubeProxy = "kube-proxy"

// startKubeProxy starts the real one on the host and waits until its rules are there.
func (c *cluster) startKubeProxy(host, mode string) {
	c.T.Helper()
	err := c.Run(c.T.Context(), host, kubeProxy, "kube-proxy", "--kubeconfig=/root/.kube/config", "--hostname-override="+host, "--proxy-mode="+mode,
		"--cluster-cidr=10.244.0.0/16", "--healthz-bind-address=127.0.0.1:10356", "--metrics-bind-address=127.0.0.1:10349",
		"--conntrack-max-per-core=0", "--v=1")
	if err != nil {
		c.T.Fatal(err)
	}
	c.eventually("kube-proxy's rules are there", time.Minute, func() (bool, string) {
		out, err := c.Sh(host, kubeProxyRules)
		return err == nil && regexp.MustCompile("default/echo[:/]udp").MatchString(out) && regexp.MustCompile("default/echo[:/]tcp").MatchString(out), out
	})
}

// kubeProxyRules prints a kube-proxy's rules, of either mode.
const kubeProxyRules = `iptables-save -t nat | grep -E 'KUBE-SVC' | grep -v PORTALS; nft list table ip kube-proxy 2>/dev/null; true`

// nothingOf fails the test when a host has something of the kind.
func (c *cluster) nothingOf(host, when string, words ...string) {
	c.T.Helper()
	out := c.Must(host, "iptables-save; ip6tables-save; nft list tables; nft list table inet weft")
	for _, w := range words {
		for line := range strings.SplitSeq(out, "\n") {
			if strings.Contains(line, w) {
				c.T.Errorf("%s: left: %s", when, line)
			}
		}
	}
}

var (
	ofKubeProxy = []string{"KUBE-S", "KUBE-EXT", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK", "KUBE-FORWARD", "KUBE-PROXY", "kube-proxy"}
	ofServices  = []string{"WEFT-S", "WEFT-EXT", "WEFT-MASQ", "WEFT-MARK", "WEFT-NODEPORTS", "WEFT-PROXY-FORWARD", "KUBE-PORTALS", "vips4", "cluster-ips", "services-"}
)

// step runs the commands of a step of the page, with the mode of this run.
func (c *cluster) step(host, name, mode string) {
	c.T.Helper()
	page, err := os.ReadFile("../../docs/migration/from-kube-proxy.md")
	if err != nil {
		c.T.Fatal(err)
	}
	m := regexp.MustCompile("<!-- run: " + name + " -->\n```sh\n((?s:.*?))```").FindSubmatch(page)
	if m == nil {
		c.T.Fatalf("docs/migration/from-kube-proxy.md has no step %s", name)
	}
	c.Must(host, "set -e\n"+strings.ReplaceAll(string(m[1]), "proxy-mode: nftables", "proxy-mode: "+mode))
}

// TestKubeProxyToWeftAndBack follows docs/migration/from-kube-proxy.md on one node, while connections live and others are made.
func TestKubeProxyToWeftAndBack(t *testing.T) {
	if _, err := os.Stat(labtest.Program(kubeProxy)); err != nil {
		t.Fatalf("%v: run make bin/kube-proxy, or set WEFT_BIN to where it is", err)
	}
	for _, x := range []struct{ theirs, ours string }{{"iptables", "nftables"}, {"nftables", "iptables"}} {
		t.Run(x.theirs, func(t *testing.T) {
			c := up(t, "nodes: 2\ncluster: {network: 10.244.0.0/16}") // kube-proxy takes who is in the pod network for a pod
			vip := c.populate()
			c.step(node1, "beside", x.ours)
			c.restart(node1, "none")
			c.inForce(node1, "none")
			c.nothingOf(node1, "mode none", ofServices...)
			c.restart(node2, "nftables")
			c.startKubeProxy(node1, x.theirs)
			clients := c.clients(vip)

			c.step(node1, "serve", x.ours)
			c.inForce(node1, x.ours)
			c.eventually("status names both", 20*time.Second, func() (bool, string) {
				_, text := c.status(node1)
				return strings.Contains(text, "a kube-proxy's rules are here too"), text
			})
			if out, err := c.Sh(node1, "weft cleanup --kube-proxy 2>&1"); err == nil || !strings.Contains(out, "kube-proxy runs here") {
				t.Errorf("beside a running one: %v\n%s", err, out)
			}
			if err := c.Stop(t.Context(), node1, kubeProxy); err != nil {
				t.Fatal(err)
			}
			c.step(node1, "clean", x.ours)
			c.nothingOf(node1, "after weft cleanup --kube-proxy", ofKubeProxy...)
			c.AsPlanned(node1)
			time.Sleep(2 * time.Second) // weft alone

			c.startKubeProxy(node1, x.theirs)
			c.step(node1, "back", x.ours)
			c.inForce(node1, "none")
			c.nothingOf(node1, "handed back", ofServices...)
			if out, err := c.Sh(node1, "weft cleanup --kube-proxy 2>&1"); err == nil {
				t.Errorf("in mode none: %s", out)
			}

			// The same without an agent: what it left in the kernel goes.
			c.Write(node1, settingsFile, "proxy-mode: "+x.ours+"\n")
			c.inForce(node1, x.ours)
			if err := c.Stop(t.Context(), node1, lab.Agent); err != nil {
				t.Fatal(err)
			}
			c.step(node1, "services", x.ours)
			c.nothingOf(node1, "after weft cleanup --services", ofServices...)
			if out := c.Must(node1, "nft list table inet weft"); !strings.Contains(out, "edge-inner") {
				t.Errorf("the edge check went, too:\n%s", out)
			}
			time.Sleep(time.Second) // kube-proxy alone
			account(t, clients)
			if err := c.Stop(t.Context(), node1, kubeProxy); err != nil {
				t.Fatal(err)
			}
		})
	}
}
