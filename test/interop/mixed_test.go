package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/lease"
)

// TestMixed runs a flannel host and a weft host in one network, for every backend they share; in some of them weft is there first.
func TestMixed(t *testing.T) {
	t.Parallel()
	for _, n := range []network{
		{name: "etcd-vxlan", conf: `{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"}}`},
		{name: "etcd-vxlan-dual", late: true, conf: `{"Network": "10.2.0.0/16", "EnableIPv6": true, "IPv6Network": "fd02::/48", "Backend": {"Type": "vxlan", "VNI": 7, "Port": 4789}}`},
		{name: "etcd-vxlan-direct", conf: `{"Network": "10.3.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}`},
		{name: "etcd-host-gw", late: true, conf: `{"Network": "10.4.0.0/16", "EnableIPv6": true, "IPv6Network": "fd04::/48", "Backend": {"Type": "host-gw"}}`},
		{name: "etcd-udp", conf: `{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}`},
		{name: "kube-vxlan", late: true, kube: true, conf: `{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}`},
		{name: "kube-vxlan-dual", kube: true, conf: `{"Network": "10.7.0.0/16", "EnableIPv6": true, "IPv6Network": "fd07::/48", "Backend": {"Type": "vxlan"}}`},
		{name: "kube-vxlan-v6", late: true, kube: true, conf: `{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd08::/48", "Backend": {"Type": "vxlan"}}`},
		{name: "kube-host-gw", kube: true, conf: `{"Network": "10.9.0.0/16", "Backend": {"Type": "host-gw"}}`},
		// Not with etcd: there flanneld 0.28.10 ends at the first peer of an IPv6-only network, or looks for a free subnet for ever.
	} {
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			n := n
			n.world = inLab(t)
			n.make()
			f, w := n.take(), n.take()
			n.join(f)
			n.join(w)
			if !n.late {
				n.flannel(f)
				n.weft(w)
			} else {
				n.weft(w)
				n.flannel(f)
			}
			n.withPod(f)
			n.withPod(w)
			n.both(f, w)
			n.converged(w)
			if a, b := n.announced(f), n.announced(w); a != b {
				t.Errorf("flannel tells the others\n%s\nweft\n%s", a, b)
			}
			mtu := "grep -h MTU " + subnetEnv + "; cat /sys/class/net/flannel*/mtu 2>/dev/null || true"
			t.Logf("MTU for pods, of the devices: flannel %q, weft %q", strings.Fields(f.must("%s", mtu)), strings.Fields(w.must("%s", mtu)))
		})
	}
}

var mac = regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}`)

// announced is what a host tells the others of itself, without what must differ between two.
func (n *network) announced(h *host) string {
	n.t.Helper()
	text := ""
	if n.kube {
		var of map[string]string
		if err := json.Unmarshal([]byte(n.kubectl("get", "node", h.name, "-o", "jsonpath={.metadata.annotations}")), &of); err != nil {
			n.t.Fatal(err)
		}
		for _, k := range slices.Sorted(maps.Keys(of)) {
			if strings.HasPrefix(k, lease.AnnotationPrefix) {
				text += k + ": " + of[k] + "\n"
			}
		}
	} else {
		key := lease.Key(api.Lease{Subnet: h.subnet, SubnetV6: h.v6})
		text = n.etcdctl("get", "--print-value-only", n.prefix()+"/subnets/"+key)
	}
	if text == "" {
		n.t.Errorf("%s announces nothing", h.name)
	}
	return mac.ReplaceAllString(strings.NewReplacer(h.addr.String(), "IPv4", h.addr6.String(), "IPv6").Replace(text), "MAC")
}

// converged waits until the agent wants nothing changed: it may have yet to see what others did last.
func (n *network) converged(h *host) {
	n.t.Helper()
	n.eventually(h.name+" is as planned", patient, func() error {
		diff, err := h.sh("weft diff") // an agent with much to do may not answer at once
		if err == nil && diff != "" {
			err = errors.New("it wants a change")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, diff)
		}
		return err
	})
}
