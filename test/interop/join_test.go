package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
)

// TestJoinAndLeave has hosts of both kinds come late, change their MAC and go.
func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	n := network{name: "join", conf: `{"Network": "10.21.0.0/16", "Backend": {"Type": "vxlan"}}`}
	n.world = inLab(t)
	n.make()
	f1, w1, f2, w2 := n.take(), n.take(), n.take(), n.take()
	join := func(h *host, start func(*host, ...string), with *host) {
		start(h)
		n.withPod(h)
		if with != nil {
			n.both(h, with)
		}
	}
	join(f1, n.flannel, nil)
	join(w1, n.weft, f1)
	join(f2, n.flannel, w1) // late, for a weft that runs
	join(w2, n.weft, f2)    // late, for a flannel that runs

	// flanneld makes a lost device anew with another MAC when it starts. What the old one needed goes.
	mac := f1.must("cat /sys/class/net/flannel.1/address")
	if err := n.Stop(t.Context(), f1.name, flannel); err != nil {
		t.Fatal(err)
	}
	f1.must("ip link del flannel.1")
	n.flannel(f1)
	var fresh string
	n.eventually("the device is back", patient, func() (err error) {
		fresh, err = f1.sh("cat /sys/class/net/flannel.1/address")
		return err
	})
	if fresh == mac {
		t.Fatalf("flannel.1 has the MAC %s again: nothing is tested", mac)
	}
	tables := "bridge fdb show dev flannel.1; ip neigh show dev flannel.1 nud permanent"
	for _, w := range []*host{w1, w2} {
		took := n.eventually(w.name+" follows the new MAC", patient, w.says(tables, fresh+" dst "+f1.addr.String(), f1.subnet.Addr().String()+" lladdr "+fresh))
		n.eventually(w.name+" forgets the old one", patient, w.silent(tables, mac))
		t.Logf("%s follows the new MAC %s after the device is there", w.name, took.Round(time.Millisecond))
		n.both(f1, w)
	}

	// Leases end.
	leave := func(gone *host, program string, others ...*host) {
		if err := n.Stop(t.Context(), gone.name, program); err != nil {
			t.Fatal(err)
		}
		n.etcdctl("del", fmt.Sprintf("%s/subnets/%s", n.prefix(), strings.Replace(gone.subnet.String(), "/", "-", 1)))
		for _, h := range others {
			took := n.eventually(h.name+" forgets "+gone.name, patient,
				h.silent("ip route; "+tables, gone.subnet.String(), gone.addr.String()+" ", gone.subnet.Addr().String()+" "))
			t.Logf("%s has no way to %s %s later", h.name, gone.name, took.Round(time.Millisecond))
		}
	}
	leave(f2, flannel, w1, w2, f1)
	leave(w2, lab.Agent, w1, f1)
	n.both(f1, w1)
	n.converged(w1)
}

// TestRealPods has pods that the agent runs and attaches without a bridge, beside a flannel host with its bridge.
func TestRealPods(t *testing.T) {
	t.Parallel()
	n := network{name: "pods", kube: true, conf: `{"Network": "10.22.0.0/16", "EnableIPv6": true, "IPv6Network": "fd22::/48", "Backend": {"Type": "vxlan"}}`}
	n.world = inLab(t)
	n.make()
	f, w := n.take(), n.take()
	n.join(f)
	n.join(w)
	n.flannel(f)
	n.withPod(f)
	n.weft(w, "--attach=routed", "--pod-runtime=process")
	pod := fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: interop}
spec:
  nodeName: %s
  tolerations: [{operator: Exists}]
  containers: [{name: c, image: busybox, command: [/weft/bin/%s, serve]}]
`, w.name, probeName)
	if err := n.WriteFile(t.Context(), master, "/root/interop.yaml", []byte(pod)); err != nil {
		t.Fatal(err)
	}
	n.eventually("the pod is taken", patient, func() error {
		_, err := n.Kubectl(t.Context(), "apply", "-f", "/root/interop.yaml")
		return err
	})
	n.kubectl("wait", "--for=condition=Ready", "pod/interop", "--timeout=30s")
	t.Cleanup(func() {
		if _, err := n.Kubectl(context.Background(), "delete", "pod", "interop", "--grace-period=0", "--force"); err != nil {
			t.Log(err)
		}
	})
	w.pod = w.subnet.Addr().Next().Next()
	for ip := range strings.FieldsSeq(n.kubectl("get", "pod", "interop", "-o", "jsonpath={.status.podIPs[*].ip}")) {
		w.podIP(ip)
	}
	w.enter = "nsenter --net=" + w.must(`grep -o '"/[^"]*"' /run/weft/attachments.json | tail -1`) + " "
	n.both(f, w)
	n.converged(w)
}
