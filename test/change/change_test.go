package change

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weft/internal/lab/topology"
)

const etcdAt = " --etcd-endpoints=http://172.17.42.30:2379"

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
	if err := c.WriteFile(c.t.Context(), master, "/root/pods.yaml", []byte(text.String())); err != nil {
		c.t.Fatal(err)
	}
	c.kubectl("apply", "-f", "/root/pods.yaml")
	addrs := map[string]string{}
	for _, h := range hosts {
		c.kubectl("wait", "--for=condition=Ready", "pod/on-"+h, "--timeout=60s")
		addrs[h] = c.kubectl("get", "pod", "on-"+h, "-o", "jsonpath={.status.podIP}")
	}
	return addrs
}

// apply puts a backend in force and returns what the command printed.
func (c *cluster) apply(backend, flags string) (string, error) {
	c.t.Helper()
	conf := `{"Network": "172.16.0.0/12", "SubnetLen": 24, "Backend": ` + backend + `}`
	if err := c.WriteFile(c.t.Context(), master, "/root/net.json", []byte(conf)); err != nil {
		c.t.Fatal(err)
	}
	return c.sh(master, "weft network apply -f /root/net.json "+flags+etcdAt+" 2>&1")
}

// TestBackendsWithoutLoss goes through all backends while all pods send to each other.
func TestBackendsWithoutLoss(t *testing.T) {
	top, err := topology.Parse([]byte("nodes: 3"))
	if err != nil {
		t.Fatal(err)
	}
	c := up(t, top)
	addrs := c.pods()
	if os.Getenv("DEBUGAGENT") != "" {
		for _, h := range hosts {
			if err := c.Restart(t.Context(), h, "agent", "-v"); err != nil {
				t.Fatal(err)
			}
		}
	}
	var table strings.Builder
	t.Cleanup(func() { t.Logf("datagrams each millisecond between three pods, both directions:\n%s", table.String()) })
	for _, x := range []struct{ what, backend string }{
		{"vxlan to host-gw", `{"Type": "host-gw"}`},
		{"host-gw to wireguard", `{"Type": "wireguard"}`},
		{"wireguard to udp", `{"Type": "udp"}`},
		{"udp to wireguard", `{"Type": "wireguard"}`},
		{"wireguard to vxlan", `{"Type": "vxlan"}`},
		{"vxlan port 8472 to 4789", `{"Type": "vxlan", "Port": 4789}`},
		{"VNI 1 to 2", `{"Type": "vxlan", "VNI": 2, "Port": 4789}`},
	} {
		p := c.probe(addrs)
		time.Sleep(300 * time.Millisecond)
		begun := time.Now()
		out, err := c.apply(x.backend, "")
		took := time.Since(begun)
		if err != nil {
			t.Fatalf("%s: %v\n%s", x.what, err, out)
		}
		time.Sleep(300 * time.Millisecond)
		sent, lost, detail := p.lost()
		fmt.Fprintf(&table, "%-26s %5d ms, %6d sent, %d lost\n", x.what, took.Milliseconds(), sent, lost)
		if lost > 0 {
			t.Errorf("%s: %d of %d lost\n%s", x.what, lost, sent, detail)
		}
	}
}
