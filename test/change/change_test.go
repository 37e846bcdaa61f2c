package change

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/lab/topology"
	"weft/test/labtest"
)

const etcdAt = " --wait=60s --etcd-endpoints=http://172.17.42.30:2379" // a busy machine's etcd says nothing for seconds

func (c *cluster) pods() map[string]string {
	var text strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&text, `
apiVersion: v1
kind: Pod
metadata: {name: on-%[1]s}
spec:
  nodeName: %[1]s
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
---`, h)
	}
	if err := c.WriteFile(c.T.Context(), master, "/root/pods.yaml", []byte(text.String())); err != nil {
		c.T.Fatal(err)
	}
	c.Kubectl("apply", "-f", "/root/pods.yaml")
	addrs := map[string]string{}
	for _, h := range hosts {
		c.Kubectl("wait", "--for=condition=Ready", "pod/on-"+h, "--timeout=60s")
		addrs[h] = c.Kubectl("get", "pod", "on-"+h, "-o", "jsonpath={.status.podIP}")
	}
	return addrs
}

// apply puts a backend in force and returns what the command printed.
func (c *cluster) apply(backend, flags string) (string, error) {
	c.T.Helper()
	conf := `{"Network": "172.16.0.0/12", "SubnetLen": 24, "Backend": ` + backend + `}`
	if err := c.WriteFile(c.T.Context(), master, "/root/net.json", []byte(conf)); err != nil {
		c.T.Fatal(err)
	}
	return c.Sh(master, "weft network apply -f /root/net.json "+flags+etcdAt+" 2>&1")
}

// clear counts, from now on, what leaves a host for pods without encryption.
const clear = `nft -f - <<E
table ip watch
delete table ip watch
table ip watch {
	chain out {
		type filter hook postrouting priority 300;
		oifname eth0 ip daddr 172.16.0.0/12 ip daddr != 172.17.0.0/16 counter
		oifname eth0 udp dport { 8472, 4789, 8285 } counter
	}
}
E`

// sealed makes sure that nothing leaves in clear while all pods send.
func (c *cluster) sealed() {
	c.T.Helper()
	for _, h := range hosts {
		c.Must(h, clear)
	}
	time.Sleep(300 * time.Millisecond)
	for _, h := range hosts {
		out := c.Must(h, "nft list chain ip watch out; nft delete table ip watch")
		if n := strings.Count(out, "counter packets 0 bytes 0"); n != 2 {
			c.T.Errorf("%s sends in clear after wireguard was put in force:\n%s", h, out)
		}
	}
}

// outcome is what a change cost.
type outcome struct {
	took       time.Duration
	sent, lost uint32
	starved    time.Duration // that agents got no processor, over all of them
	detail     string
}

// during runs a change while all pods send to each other.
func (c *cluster) during(addrs map[string]string, do func()) outcome {
	p, s := c.probe(addrs), c.Starve()
	time.Sleep(200 * time.Millisecond)
	begun := time.Now()
	do()
	o := outcome{took: time.Since(begun)}
	time.Sleep(200 * time.Millisecond)
	o.sent, o.lost, o.detail = p.lost()
	o.starved = s.Total()
	return o
}

// excused is how many datagrams may be lost in a change that must lose none: none, but where a user-space tunnel carries them and its program
// was ready to run and did not get a processor. Then the kernel drops at the TUN device what a pod sends and the program does not read.
func (o outcome) excused(userSpace bool) uint32 {
	if !userSpace {
		return 0
	}
	return uint32(o.starved/probeGap) * uint32(len(hosts)-1) // what pods of hosts that starved sent
}

// TestChangesWithoutLoss goes through all backends while all pods send to each other, then through the options that each node changes by
// itself.
func TestChangesWithoutLoss(t *testing.T) {
	top, err := topology.Parse([]byte("nodes: 3"))
	if err != nil {
		t.Fatal(err)
	}
	c := up(t, top)
	addrs := c.pods()
	subnets, before := c.subnets(), ""
	var table strings.Builder
	t.Cleanup(func() { t.Logf("datagrams each 4 ms between three pods, both directions:\n%s", table.String()) })
	for _, x := range []struct {
		what, backend string
		free          bool // of loss
	}{
		{"vxlan to host-gw", `{"Type": "host-gw"}`, true},
		{"host-gw to wireguard", `{"Type": "wireguard"}`, true},
		{"wireguard: a preshared key", `{"Type": "wireguard", "PSK": "` + psk + `"}`, true},
		{"wireguard: port 51820 to 7000", `{"Type": "wireguard", "PSK": "` + psk + `", "ListenPort": 7000}`, true},
		{"wireguard: port 7000 to 7100, mode", `{"Type": "wireguard", "PSK": "` + psk + `", "ListenPort": 7100, "Mode": "auto"}`, true},
		{"wireguard to udp", `{"Type": "udp"}`, true},
		{"udp to wireguard", `{"Type": "wireguard"}`, true},
		{"wireguard to vxlan", `{"Type": "vxlan"}`, true},
		{"vxlan: learning", `{"Type": "vxlan", "Learning": true}`, true},
		{"vxlan: outer MTU 1400", `{"Type": "vxlan", "MTU": 1400}`, true},
		{"vxlan: GBP", `{"Type": "vxlan", "GBP": true}`, false},
		{"vxlan port 8472 to 4789", `{"Type": "vxlan", "Port": 4789}`, true},
		{"VNI 1 to 2", `{"Type": "vxlan", "VNI": 2, "Port": 4789}`, true},
	} {
		o := c.during(addrs, func() {
			if out, err := c.apply(x.backend, ""); err != nil {
				t.Fatalf("%s: %v\n%s", x.what, err, out)
			}
			if strings.Contains(x.backend, "wireguard") {
				c.sealed()
			}
		})
		fmt.Fprintf(&table, "%-30s %5d ms, %6d sent, %d lost, starved %s\n", x.what, o.took.Milliseconds(), o.sent, o.lost, o.starved)
		limit := o.sent / 2
		if x.free {
			limit = o.excused(userSpace(before) || userSpace(x.backend))
		}
		before = x.backend
		if o.lost > limit {
			t.Errorf("%s: %d of %d lost, agents starved for %s\n%s", x.what, o.lost, o.sent, o.starved, o.detail)
		}
	}
	if now := c.subnets(); now != subnets {
		t.Errorf("subnets changed:\n%s\n%s", subnets, now)
	}
	c.leftovers()
}

// TestPortForthAndBack takes a change of wireguard's port back when all hosts send to the new one already: the devices change places once
// more, and no packet is lost.
func TestPortForthAndBack(t *testing.T) {
	top, err := topology.Parse([]byte("nodes: 3"))
	if err != nil {
		t.Fatal(err)
	}
	c := up(t, top)
	addrs := c.pods()
	const first, second = `{"Type": "wireguard"}`, `{"Type": "wireguard", "ListenPort": 7000}`
	must := func(config string) {
		t.Helper()
		if out, err := c.apply(config, ""); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	all := func() error {
		if out := c.Must(master, "weft network show"+etcdAt); !strings.Contains(out, "3 of 3 hosts") {
			return fmt.Errorf("not all hosts are ready:\n%s", out)
		}
		return nil
	}
	must(first)
	o := c.during(addrs, func() {
		must(first + `, "NextBackend": ` + second + `, "Change": "forth"`)
		labtest.Eventually(t, "it is prepared", 10*time.Second, all)
		must(second + `, "PreviousBackend": ` + first + `, "Change": "forth"`)
		labtest.Eventually(t, "it is in force", 10*time.Second, all)
		c.sealed()
		must(first)
		c.sealed()
		time.Sleep(3 * time.Second) // the device that was left goes
		c.sealed()
	})
	t.Logf("%d of %d lost, agents starved for %s", o.lost, o.sent, o.starved)
	if o.lost > o.excused(true) {
		t.Errorf("more lost than where a program gets no processor:\n%s", o.detail)
	}
	for _, h := range hosts {
		labtest.Eventually(t, "the names on "+h, 10*time.Second, func() error {
			if out := c.Must(h, "weft diff; ip -o link | cut -d: -f2 | grep weft-wg || true; ss -Huln | grep 7000 || true"); out != "" {
				return fmt.Errorf("left: %s", out)
			}
			return nil
		})
	}
}

// userSpace reports whether a program carries the backend's packets on this machine.
func userSpace(backend string) bool {
	return strings.Contains(backend, "udp") || strings.Contains(backend, "wireguard")
}

const psk = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func (c *cluster) subnets() string {
	var all string
	for _, h := range hosts {
		all += c.Must(h, "grep SUBNET /run/flannel/subnet.env") + "\n"
	}
	return all
}

// leftovers makes sure that nothing of earlier backends is left on the hosts once what lingers is gone, and nothing differs from the plan.
func (c *cluster) leftovers() {
	c.T.Helper()
	for _, h := range hosts {
		labtest.Eventually(c.T, "nothing is left on "+h, 10*time.Second, func() error {
			if out := c.Must(h, "weft diff"); out != "" {
				return fmt.Errorf("not as planned:\n%s", out)
			}
			if out := c.Must(h, "ip -o link | cut -d: -f2 | grep -E 'weft4|weft6|weft-wg|flannel-wg|flannel0|flannel.1' || true"); out != "" {
				return fmt.Errorf("devices of earlier backends: %s", out)
			}
			return nil
		})
		if out := c.Must(h, "weft network show -o json"+etcdAt); strings.Contains(out, `"also"`) || strings.Contains(out, `"change"`) {
			c.T.Errorf("a change is still under way: %s", out)
		}
	}
}
