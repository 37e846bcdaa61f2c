package sources_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/attach"
	"weft/internal/kernel/netns"
	"weft/internal/masq"
	"weft/internal/masq/contract"
)

// beside is somebody else's rules on n1, in a script that puts them there and one that takes them away, and the rows that they change: the
// source instead of the contract's.
type beside struct {
	name, backend, up, down string
	changes                 map[contract.Destination]string
	elsewhere               bool // in a table other than that of the host's iptables
}

const snat = "192.168.50.77"

var besides = []beside{
	{name: "docker", backend: "vxlan", up: `iptables -t nat -I POSTROUTING -s 172.20.1.0/24 ! -o cni0 -j MASQUERADE
		ip6tables -t nat -I POSTROUTING -s fd00:20:0:1::/64 ! -o cni0 -j MASQUERADE`},
	{
		name: "docker, legacy", backend: "vxlan", up: `iptables-legacy -t nat -I POSTROUTING -s 172.20.1.0/24 ! -o cni0 -j MASQUERADE
		ip6tables-legacy -t nat -I POSTROUTING -s fd00:20:0:1::/64 ! -o cni0 -j MASQUERADE`,
		down: "iptables-legacy -t nat -F; ip6tables-legacy -t nat -F", elsewhere: true,
	},
	{name: "docker, udp", backend: "udp", up: `iptables -t nat -I POSTROUTING -s 172.20.1.0/24 ! -o cni0 -j MASQUERADE
		ip6tables -t nat -I POSTROUTING -s fd00:20:0:1::/64 ! -o cni0 -j MASQUERADE`},
	{name: "a gateway", backend: "host-gw", up: `iptables -t nat -I POSTROUTING -o eth0 -j MASQUERADE
		ip6tables -t nat -I POSTROUTING -o eth0 -j MASQUERADE`},
	{name: "a gateway in nftables", backend: "host-gw", up: `nft 'table inet gw { chain post { type nat hook postrouting priority srcnat;
		oifname eth0 masquerade; }; }'`, down: "nft delete table inet gw", elsewhere: true},
	{
		name: "a SNAT of the administrator", backend: "vxlan", up: `ip addr add ` + snat + `/24 dev eth0
		iptables -t nat -I POSTROUTING -s 172.20.1.0/24 -d 203.0.113.0/24 -j SNAT --to ` + snat,
		down: "ip addr del " + snat + "/24 dev eth0", changes: map[contract.Destination]string{contract.ToOutside: "outside " + snat},
	},
	{
		name: "hairpin of published ports", backend: "vxlan", up: `iptables -t nat -I POSTROUTING -s 172.20.1.5 -d 172.20.1.6 -j SNAT --to 172.20.1.1`,
		changes: map[contract.Destination]string{contract.ToPod: "b 172.20.1.1", contract.ToService: "b 172.20.1.1"},
	},
}

// wants are the sources that may be seen. Rules in iptables can't come before those of another table at the same priority for sure.
func (b beside) wants(c config, f flowOf) []string {
	if to, ok := b.changes[f.To]; ok && !f.v6 && f.From == contract.Pod {
		return []string{to}
	}
	all := []string{f.want}
	if b.elsewhere && c.proxy == facts.IPTables && f.From == contract.Pod {
		host, _, _ := strings.Cut(f.want, " ")
		for _, s := range []contract.Source{contract.Overlay, contract.Underlay} {
			all = append(all, host+" "+address(s, f.From, c.backend, f.v6).String())
		}
	}
	return all
}

// TestBeside sends the contract's rows beside rules of others, put there before ours and after them.
func TestBeside(t *testing.T) {
	netns.Need(t)
	l := newLab(t)
	nodes := []*node{l.newNode(t, "n1"), l.newNode(t, "n2")}
	listening := false
	for _, b := range besides {
		c := config{attach.Bridge, b.backend, "", masq.Outside}
		for _, c.proxy = range []facts.ProxyMode{facts.NFTables, facts.IPTables} {
			w := l.world(t, c, nodes)
			for _, n := range nodes {
				l.applyState(t, n, w)
			}
			if !listening {
				l.start(t, attach.Bridge)
				listening = true
			}
			l.shakeHands()
			for _, when := range []string{"before", "after"} {
				t.Run(name(b.name, " ", c.proxy, " ", when), func(t *testing.T) {
					steps := []func(){
						func() { l.sh("n1", b.up) },
						func() { l.applyRules(t, nodes[0], w) },
						func() { l.applyRules(t, nodes[1], w) },
					}
					if when == "after" {
						slices.Reverse(steps)
						steps = append(steps, steps[1]) // what the event of the change makes the agent do
					}
					for _, s := range steps {
						s()
					}
					l.proveBeside(t, c, b)
				})
				l.sh("n1", "iptables -t nat -F POSTROUTING; ip6tables -t nat -F POSTROUTING; "+b.down)
			}
		}
	}
}

// proveBeside sends what leaves n1.
func (l *lab) proveBeside(t *testing.T, c config, b beside) {
	t.Helper()
	flows := slices.DeleteFunc(l.flows(c), func(f flowOf) bool { return f.From != contract.Pod && f.From != contract.Node || f.onLink() })
	for i, got := range l.sendAll(flows) {
		f := flows[i]
		if want := b.wants(c, f); !slices.Contains(want, got) {
			t.Errorf("%s to %s, %s, %s: %q, want %q", f.From, f.To, family(f.v6), f.network, got, want)
		}
	}
}

// kubeProxy is what a kube-proxy in mode iptables makes of one service with an endpoint on the other node, its masquerading counted.
const kubeProxy = `
	iptables -t nat -N KUBE-MARK-MASQ; iptables -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
	iptables -t nat -N KUBE-SERVICES; iptables -t nat -I PREROUTING -j KUBE-SERVICES; iptables -t nat -I OUTPUT -j KUBE-SERVICES
	iptables -t nat -A KUBE-SERVICES ! -s 172.20.0.0/16 -d 10.96.0.1 -j KUBE-MARK-MASQ
	for p in tcp udp; do iptables -t nat -A KUBE-SERVICES -d 10.96.0.1 -p $p --dport 80 -j DNAT --to 172.20.2.5:80; done
	iptables -t nat -N KUBE-POSTROUTING; iptables -t nat -I POSTROUTING -j KUBE-POSTROUTING
	iptables -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
	iptables -t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
	iptables -t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully`

const kubeProxyGone = `for c in PREROUTING OUTPUT POSTROUTING; do iptables -t nat -F $c; done
	for c in SERVICES MARK-MASQ POSTROUTING; do iptables -t nat -F KUBE-$c; done; for c in SERVICES MARK-MASQ POSTROUTING; do iptables -t nat -X KUBE-$c; done`

// TestBesideKubeProxy: a kube-proxy serves, weft masquerades pods. What kube-proxy marked it masquerades itself, once; what it did not keeps
// its source.
func TestBesideKubeProxy(t *testing.T) {
	netns.Need(t)
	l := newLab(t)
	nodes := []*node{l.newNode(t, "n1"), l.newNode(t, "n2")}
	l.sh("outside", "ip route add 10.96.0.0/16 via 192.168.50.11")
	for i, proxy := range []facts.ProxyMode{facts.NFTables, facts.IPTables} {
		for _, mode := range contract.Modes {
			t.Run(name(proxy, " ", mode), func(t *testing.T) {
				c := config{attach.Routed, "vxlan", proxy, mode}
				w := l.world(t, c, nodes)
				for _, n := range nodes {
					l.applyState(t, n, w)
				}
				if i == 0 && mode == contract.Modes[0] {
					l.start(l.t, attach.Routed) // for all of them
				}
				l.applyRules(t, nodes[0], w)
				l.applyRules(t, nodes[1], w)
				l.sh("n1", kubeProxy)
				defer l.sh("n1", kubeProxyGone)
				l.applyRules(t, nodes[0], w)
				vip := netip.MustParseAddrPort("10.96.0.1:80")
				pod := map[masq.Mode]string{masq.Pods: "172.20.1.0"}[mode]
				if pod == "" {
					pod = own["a"][0].String()
				}
				for _, network := range []string{"tcp", "udp"} {
					for _, x := range []struct {
						from, want string
						src        netip.Addr
					}{
						{"a", "c " + pod, netip.Addr{}}, {"n1", "c 172.20.1.0", netip.Addr{}}, {"outside", "c 172.20.1.0", own["outside"][0]},
					} {
						l.port++
						if got := l.send(packet{x.from, x.src, network, vip, l.port}, patience); got != x.want {
							t.Errorf("%s, %s: %q, want %q", x.from, network, got, x.want)
						}
					}
				}
			})
		}
	}
}

// marks are what others have in the packets' marks: no bit of it is weft's.
const marks = 0x00ab0003

// witnessed counts at the very end of postrouting which packets to the other node's pod still bear exactly these marks.
var witnessed = fmt.Sprintf(`nft '
	table inet others {
		counter right { }
		counter wrong { }
		chain in { type filter hook prerouting priority mangle; meta mark set %[1]d; }
		chain out { type route hook output priority mangle; meta mark set %[1]d; }
		chain end { type filter hook postrouting priority 300;
			ip daddr 172.20.2.5 meta mark %[1]d counter name right
			ip daddr 172.20.2.5 meta mark != %[1]d counter name wrong
			ip6 daddr fd00:20:0:2::5 meta mark %[1]d counter name right
			ip6 daddr fd00:20:0:2::5 meta mark != %[1]d counter name wrong
		}
	}'`, marks)

// TestMarksOfOthersStay: services mark and masquerade, and every other bit of the mark is as it was.
func TestMarksOfOthersStay(t *testing.T) {
	netns.Need(t)
	l := newLab(t)
	nodes := []*node{l.newNode(t, "n1"), l.newNode(t, "n2")}
	l.sh("n1", witnessed)
	for i, proxy := range []facts.ProxyMode{facts.NFTables, facts.IPTables} {
		c := config{attach.Routed, "vxlan", proxy, masq.Outside}
		w := l.world(t, c, nodes)
		for _, n := range nodes {
			l.applyState(t, n, w)
		}
		if i == 0 {
			l.start(t, attach.Routed)
		}
		l.applyRules(t, nodes[0], w)
		l.applyRules(t, nodes[1], w)
		flows := slices.DeleteFunc(l.flows(c), func(f flowOf) bool {
			return f.To != contract.ToServiceAway && f.To != contract.ToPodAway && f.To != contract.ToPortAway
		})
		for i, got := range l.sendAll(flows) {
			if f := flows[i]; !f.perhaps && got != f.want {
				t.Errorf("%s: %s to %s: %q, want %q", proxy, f.From, f.To, got, f.want)
			}
		}
		if right, wrong := l.counter(t, "right"), l.counter(t, "wrong"); right < len(flows) || wrong > 0 {
			t.Errorf("%s: of %d flows %d packets bear the marks of others, %d do not", proxy, len(flows), right, wrong)
		}
		l.sh("n1", "nft reset counters table inet others >/dev/null")
	}
}

// counter reads a named counter of n1.
func (l *lab) counter(t *testing.T, name string) int {
	t.Helper()
	var out []byte
	err := l.ns["n1"].Do(func() (err error) {
		out, err = exec.Command("nft", "-j", "list", "counter", "inet", "others", name).Output()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Nftables []struct {
			Counter struct{ Packets int }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, x := range list.Nftables {
		n += x.Counter.Packets
	}
	return n
}
