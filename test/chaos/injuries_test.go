package chaos

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/netstate"
)

// injury is one kind: the command that does it on a node.
type injury struct {
	kind    string
	command func(s *story, n *node) string
}

// repeat is an injury by a fixed command; PEER is a peer's subnet address, VETH the pod's interface on the host, POD enters the pod.
func repeat(kind, command string) injury {
	return injury{kind, func(s *story, n *node) string {
		return strings.NewReplacer("PEER", n.peers[s.rnd.IntN(len(n.peers))], "VETH", n.veth, "POD ", n.inPod, "IP", n.pod.ip.String()).Replace(command)
	}}
}

// nothing is no injury: what it takes is the way to the host and the looks, on a machine as busy as it is.
const nothing = "nothing, for comparison"

// anyMode are the injuries of every mode.
var anyMode = []injury{
	repeat(nothing, "true"),
	repeat("route to a peer deleted", "ip route del PEER/24"),
	repeat("route to a peer replaced", "ip route replace PEER/24 via 172.17.42.1 dev eth0"),
	repeat("neighbour deleted", "ip neigh del PEER dev flannel.1"),
	repeat("neighbour altered", "ip neigh replace PEER lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent"),
	repeat("FDB entry deleted", "e=$(bridge fdb show dev flannel.1 | grep dst | shuf -n 1); bridge fdb del $(echo $e | cut -d' ' -f1) dev flannel.1 dst $(echo $e | grep -o '172[0-9.]*')"),
	repeat("FDB entry altered", "bridge fdb replace $(bridge fdb show dev flannel.1 | grep dst | shuf -n 1 | cut -d' ' -f1) dev flannel.1 dst 172.17.42.99 self permanent"),
	repeat("address of the VTEP deleted", "ip addr flush dev flannel.1"),
	repeat("MTU of the VTEP altered", "ip link set flannel.1 mtu 1000"),
	repeat("MAC of the VTEP altered", "ip link set flannel.1 address 02:00:00:00:00:99"),
	repeat("local address of the VTEP altered", "ip link set flannel.1 type vxlan id 1 local 172.17.42.99 dev eth0"),
	repeat("VTEP down", "ip link set flannel.1 down"),
	repeat("VTEP deleted", "ip link del flannel.1"),
	repeat("pod's interface deleted on the host", "ip link del VETH"),
	repeat("pod's interface down on the host", "ip link set VETH down"),
	repeat("pod's interface deleted in the pod", "POD ip link del eth0"),
	repeat("pod's interface down in the pod", "POD ip link set eth0 down"),
	repeat("pod's interface renamed in the pod", "POD ip link set eth0 down && POD ip link set eth0 name mine"),
	repeat("pod's default route deleted in the pod", "POD ip route del default"),
	repeat("pod's address deleted in the pod", "POD ip addr flush dev eth0"),
	repeat("pod's MTU altered in the pod", "POD ip link set eth0 mtu 900"),
	{"kernel parameter altered", func(s *story, n *node) string {
		all := netstate.Of[netstate.Sysctl](n.host.want)
		p := all[s.rnd.IntN(len(all))]
		value := "0"
		if p.Value == "0" {
			value = "1"
		}
		return fmt.Sprintf("echo %s > /proc/sys/%s", value, p.Name)
	}},
}

// routedOnly are those of pods that are attached by routes.
var routedOnly = []injury{
	repeat("route to a pod deleted", "ip route del IP/32"),
	repeat("neighbour of a pod deleted", "ip neigh del IP dev VETH"),
	repeat("pod's neighbour deleted in the pod", "POD ip neigh flush nud permanent dev eth0"),
}

// bridgeOnly are those of pods on a bridge.
var bridgeOnly = []injury{
	repeat("bridge deleted", "ip link del cni0"),
	repeat("bridge down", "ip link set cni0 down"),
	repeat("pod's port taken off the bridge", "ip link set VETH nomaster"),
}

// nftOnly are those of mode nftables.
var nftOnly = []injury{
	repeat("nftables table deleted", "nft delete table inet weft"),
	repeat("nftables ruleset flushed", "nft flush ruleset"),
	repeat("nftables table flushed", "nft flush table inet weft"),
	repeat("nftables chain flushed", "nft flush chain inet weft services-prerouting"),
	repeat("nftables set element deleted", "nft delete element inet weft cluster-ips4 { 10.254.0.1 }"),
	repeat("nftables set element added", "nft add element inet weft cluster-ips4 { 10.254.99.99 }"),
}

// xtOnly are those of the modes that use iptables.
var xtOnly = []injury{
	repeat(nothing, "true"),
	repeat("iptables chain flushed", "iptables -t nat -F $(iptables-save -t nat | grep -oE '^:(KUBE|WEFT)[^ ]*' | tr -d : | shuf -n 1)"),
	repeat("iptables table flushed", "iptables -t nat -F"),
	repeat("iptables jump deleted", "r=$(iptables-save -t nat | grep -E '^-A (PREROUTING|OUTPUT|POSTROUTING) .*-j (KUBE|WEFT)' | head -1 | cut -c4-); eval iptables -t nat -D $r"),
	repeat("iptables rule added to our chain", "iptables -t nat -A $(iptables-save -t nat | grep -oE '^:(KUBE|WEFT)[^ ]*' | tr -d : | shuf -n 1) -s 192.0.2.1 -j ACCEPT"),
}

// limit is how long a repair may take before the story ends.
const limit = 20 * time.Second

// TestObjects injures kernel objects: all kinds in random order, rounds times each.
func TestObjects(t *testing.T) {
	for _, c := range []struct {
		mode, attach string
		kinds        [][]injury
	}{
		{"nftables", "routed", [][]injury{anyMode, routedOnly, nftOnly}},
		{"userspace", "bridge", [][]injury{anyMode, bridgeOnly, xtOnly}},
		{"iptables", "routed", [][]injury{xtOnly}},
	} {
		t.Run(c.mode+" "+c.attach, func(t *testing.T) {
			s := begin(t, c.mode, c.attach)
			s.foreign()
			var order []injury
			for _, kinds := range c.kinds {
				for _, x := range kinds {
					for range *rounds {
						if strings.Contains(x.kind, *only) || x.kind == nothing {
							order = append(order, x)
						}
					}
				}
			}
			s.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, x := range order {
				n := s.one()
				s.injure(x.kind, n, x.command(s, n), limit)
			}
			if len(order) > 0 {
				s.finish(t)
				s.table.document(t, c.mode+" "+c.attach)
			}
		})
	}
}

// foreign puts objects of others beside weft's: they must be there at the end.
const foreignObjects = "ip rule show pref 77; ip route show 198.51.100.0/24; nft list table inet others"

func (s *story) foreign() {
	for _, n := range s.nodes {
		s.must(n.name, "ip rule add pref 77 from 10.9.0.0/16 lookup 77; ip route add blackhole 198.51.100.0/24; nft add table inet others")
	}
}

// finish judges and reports.
func (s *story) finish(t *testing.T) {
	t.Logf("repairs (the injury's command is in the time):\n%s", s.table)
	var all []trial
	for _, kind := range s.table.kinds {
		if kind == nothing {
			continue
		}
		all = append(all, s.table.trials[kind]...)
		if strings.Contains(kind, "ruleset") {
			for _, n := range s.nodes { // it took the others' table too
				s.must(n.name, "nft add table inet others")
			}
		}
	}
	sorted := times(all)
	p50, p99, worst := quantile(sorted, 0.5), quantile(sorted, 0.99), sorted[len(sorted)-1]
	resets, echoes := s.tr.broken()
	t.Logf("%d injuries: p50 %s, p99 %s, max %s; the TCP connection carried %d lines and broke %d times", len(all), ms(p50), ms(p99), ms(worst), echoes, resets)
	base := times(s.table.trials[nothing])
	noise := quantile(base, 1)
	t.Logf("nothing took %s", base)
	if wait := 10 * noise; p50 > 100*time.Millisecond+wait || worst > s.still.Allow(time.Second+wait, s.begun) {
		t.Errorf("p50 %s, want 100 ms; max %s, want 1 s; and ten times what nothing took, %s; the machine stood still for %s", p50, worst, noise, s.still.Since(s.begun))
	}
	if *strict && p99 > 100*time.Millisecond {
		t.Errorf("p99 %s, want 100 ms", p99)
	}
	if resets > 0 {
		t.Errorf("the TCP connection broke %d times: %v", resets, s.tr.why)
	}
	for _, n := range s.nodes {
		out := s.must(n.name, foreignObjects)
		for _, want := range []string{"lookup 77", "blackhole 198.51.100.0/24", "table inet others"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %s of others is gone:\n%s", n.name, want, out)
			}
		}
		s.eventually(n.name+" is as planned", 5*time.Second, func() error {
			diff, err := s.sh(n.name, "weft diff")
			if err == nil && diff != "" {
				err = errors.New(diff)
			}
			return err
		})
	}
}
