package interop

import (
	"testing"

	"weft/internal/lab"
)

// left is how a host is looked at for what the other program left.
const (
	rulesOf  = "iptables-save; ip6tables-save; nft list tables"
	routesOf = "ip route; ip -6 route; ip nexthop; ip -d link"
)

// identity is what must not change: subnet, device index, MAC.
func (h *host) identity() string {
	return h.must("grep SUBNET " + subnetEnv + "; for d in $(ls /sys/class/net | grep flannel); do echo $d $(cat /sys/class/net/$d/ifindex /sys/class/net/$d/address); done;" +
		" cat /sys/class/net/cni0/ifindex /sys/class/net/cni0/address")
}

// TestTakeOver changes a flannel host to weft and back, under traffic to and from it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for _, n := range []network{
		{name: "take-etcd", conf: `{"Network": "10.11.0.0/16", "Backend": {"Type": "vxlan"}}`},
		{name: "take-kube", kube: true, conf: `{"Network": "10.12.0.0/16", "EnableIPv6": true, "IPv6Network": "fd12::/48", "Backend": {"Type": "vxlan"}}`},
		{name: "take-nft", conf: `{"Network": "10.13.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan", "DirectRouting": true}}`},
		// The device goes with flanneld, which carries the packets itself: some are lost, the connections are not.
		{name: "take-udp", lossy: true, conf: `{"Network": "10.16.0.0/16", "Backend": {"Type": "udp"}}`},
		{name: "take-host-gw", conf: `{"Network": "10.14.0.0/16", "Backend": {"Type": "host-gw"}}`},
	} {
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			n := n
			n.world = inLab(t)
			n.make()
			a, f, w := n.take(), n.take(), n.take()
			for _, h := range []*host{a, f, w} {
				n.join(h)
			}
			n.flannel(a)
			n.flannel(f)
			n.weft(w)
			for _, h := range []*host{a, f, w} {
				n.withPod(h)
			}
			n.both(a, f)
			n.both(a, w)
			before := a.identity()
			var all []*stream
			for _, peer := range []*host{f, w} {
				if n.lossy { // few packets: a program carries each
					all = append(all, peer.stream(true, a.pod))
					continue
				}
				if n.v4 {
					all = append(all, a.stream(true, peer.pod), peer.stream(true, a.pod), a.stream(false, peer.pod))
				}
				if n.v6 {
					all = append(all, a.stream(true, peer.pod6), peer.stream(true, a.pod6))
				}
			}
			n.takeOver(a)
			if now := a.identity(); now != before && !n.lossy {
				t.Errorf("before:\n%s\nafter taking over:\n%s", before, now)
			}
			n.eventually("flannel is gone", patient, a.silent(rulesOf, "FLANNEL", "flannel"))
			n.eventually("no route of flannel's is left", patient, a.silent("(ip route show proto boot; ip -6 route show proto boot) | grep -v ^default", "10.", "fd12:"))
			n.converged(a)

			n.handBack(a)
			if now := a.identity(); now != before && !n.lossy {
				t.Errorf("before:\n%s\nafter handing back:\n%s", before, now)
			}
			n.eventually("weft is gone", patient, a.silent(rulesOf+"; "+routesOf, "weft", "WEFT", "proto 119"))
			n.unbroken(all, n.lossy)
			n.both(a, f)
			n.both(a, w)
		})
	}
}

// TestRolling changes three flannel hosts to weft, one by one, under traffic between all pairs.
func TestRolling(t *testing.T) {
	n := network{name: "rolling", conf: `{"Network": "10.15.0.0/16", "Backend": {"Type": "vxlan"}}`}
	t.Parallel()
	n.world = inLab(t)
	n.make()
	all := []*host{n.take(), n.take(), n.take()}
	for _, h := range all {
		n.flannel(h)
	}
	for _, h := range all {
		n.withPod(h)
	}
	var streams []*stream
	for i, from := range all {
		for j, to := range all {
			if i != j {
				n.check(from, from.pod, to.pod, from.hostSource(&n, false))
				streams = append(streams, from.stream(true, to.pod))
			}
		}
	}
	for _, h := range all {
		before := h.identity()
		n.takeOver(h)
		if now := h.identity(); now != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, now)
		}
	}
	n.unbroken(streams, false)
	for _, h := range all {
		n.converged(h)
	}
	// Without --keep-network nothing remains.
	h := all[0]
	if err := n.Stop(t.Context(), h.name, lab.Agent); err != nil {
		t.Fatal(err)
	}
	h.must("weft cleanup")
	n.eventually("all is gone", patient, h.silent(rulesOf+"; "+routesOf, "weft", "WEFT", "proto 119", "flannel", "cni0"))
}
