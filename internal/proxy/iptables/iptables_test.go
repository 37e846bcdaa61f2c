package iptables_test

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/proxy"
	"weft/internal/proxy/iptables"
	"weft/internal/xt"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

var _ proxy.Backend[xt.Ruleset] = iptables.Planner{}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// endpoints reads "address" with "@node" where it runs, "!" behind when not ready, "~" when terminating and serving.
func endpoints(list ...string) (out []api.Endpoint) {
	for _, s := range list {
		var e api.Endpoint
		e.Ready = !strings.ContainsAny(s, "!~")
		e.Serving, e.Terminating = strings.Contains(s, "~"), strings.Contains(s, "~")
		addr, node, _ := strings.Cut(strings.TrimRight(s, "!~"), "@")
		e.Addr, e.Node = netip.MustParseAddrPort(addr), node
		out = append(out, e)
	}
	return out
}

var (
	node1 = proxy.Node{Name: "kube-node1", Addresses: addrs("172.17.42.31"), ClusterCIDRs: prefixes("172.16.0.0/12", "fd00:16::/48")}
	nginx = api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "my-nginx-service"}, Protocol: api.TCP,
		ClusterIPs: addrs("10.254.247.121"), Port: 8080, Endpoints: endpoints("172.16.28.5:80@kube-node1", "172.16.78.9:80@kube-node2"),
	}
)

func with(s api.ServicePort, f func(*api.ServicePort)) api.ServicePort { f(&s); return s }

func named(name string) api.ServicePortName {
	return api.ServicePortName{Namespace: "default", Name: name}
}

func dualStack() proxy.Node {
	n := node1
	n.Addresses = addrs("172.17.42.31", "fd00:17::31")
	return n
}

type story struct {
	name, comment string
	planner       iptables.Planner
	node          proxy.Node
	services      []api.ServicePort
}

func stories() []story {
	narrow := dualStack()
	narrow.NodePortAddresses = prefixes("172.17.0.0/16", "127.0.0.0/8")
	several, plain := node1, node1
	several.ClusterCIDRs = prefixes("172.16.0.0/16", "172.18.0.0/16")
	plain.ClusterCIDRs = nil
	var zero iptables.Planner
	return []story{
		{"empty", "No service at all: the chains and the jumps to them.", zero, dualStack(), nil},
		{"walkthrough", "The walkthrough's service on kube-node1, one endpoint of it here.", zero, node1, []api.ServicePort{nginx}},
		{"noendpoints", "Services without a ready endpoint are rejected; one that is terminating still serves.", zero, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.Endpoints, s.NodePort, s.External = nil, 30080, addrs("192.0.2.1")
				s.LoadBalancer, s.SourceRanges = prefixes("192.0.2.2/32"), prefixes("203.0.113.0/24")
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.Endpoints = named("b"), addrs("10.254.0.9"), endpoints("172.16.78.9:80!", "172.16.78.10:80~")
			}),
		}},
		{"dualstack", "Both families; TCP and UDP on one port.", zero, dualStack(), []api.ServicePort{
			{
				Name: api.ServicePortName{Namespace: "default", Name: "dns", Port: "dns-tcp"}, Protocol: api.TCP,
				ClusterIPs: addrs("10.254.0.10", "fd00:10::10"), Port: 53, Endpoints: endpoints("172.16.28.5:53", "[fd00:16::5]:53"),
			},
			{
				Name: api.ServicePortName{Namespace: "default", Name: "dns", Port: "dns"}, Protocol: api.UDP,
				ClusterIPs: addrs("10.254.0.10", "fd00:10::10"), Port: 53, Endpoints: endpoints("172.16.28.5:53"),
			},
		}},
		{"exposed", "NodePort, external and load balancer address with source ranges; NodePorts on some addresses only.", zero, narrow, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.NodePort, s.External, s.LoadBalancer = 30080, addrs("192.0.2.1"), prefixes("192.0.2.2/32")
				s.SourceRanges = prefixes("203.0.113.0/24", "198.51.100.7/32")
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.Protocol, s.NodePort = named("u"), addrs("10.254.0.9"), api.SCTP, 30081
			}),
		}},
		{"policylocal", "Traffic policies Local: with an endpoint on the node, with none on it, with none at all.", zero, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.NodePort, s.ExternalLocal, s.InternalLocal, s.HealthCheckNodePort = 30080, true, true, 32000
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.NodePort = named("away"), addrs("10.254.0.9"), 30081
				s.ExternalLocal, s.InternalLocal = true, true
				s.Endpoints = endpoints("172.16.78.9:80@kube-node2")
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.NodePort = named("none"), addrs("10.254.0.10"), 30082
				s.ExternalLocal, s.InternalLocal, s.Endpoints = true, true, nil
			}),
		}},
		{"affinity", "Session affinity by client address.", zero, dualStack(), []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.AffinitySeconds, s.NodePort, s.ClusterIPs = 10800, 30080, addrs("10.254.247.121", "fd00:10::79")
				s.Endpoints = append(s.Endpoints, endpoints("[fd00:16::5]:80")...)
			}),
		}},
		{
			"masqueradeall", "All connections masqueraded, with another mark; source ports kept.",
			iptables.Planner{MasqueradeAll: true, Mark: 0x8000, KeepPorts: true, Liberal: true},
			plain,
			[]api.ServicePort{nginx},
		},
		{"severalcidrs", "Several pod networks.", zero, several, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.NodePort, s.ExternalLocal = 30080, true }),
		}},
		{"nocidr", "Pod networks not known: clients keep their source.", zero, plain, []api.ServicePort{nginx}},
	}
}

// TestGolden compares the plans, lets both variants of iptables-restore judge them, and reads them back.
func TestGolden(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			got := s.planner.All(s.node, s.services)
			a := &txtar.Archive{Comment: []byte(s.comment + "\n"), Files: []txtar.File{
				{Name: "iptables-save", Data: []byte(got.V4.String())},
				{Name: "ip6tables-save", Data: []byte(got.V6.String())},
			}}
			golden(t, filepath.Join("testdata", s.name+".txtar"), txtar.Format(a))
			for _, v6 := range []bool{false, true} {
				tables := *got.Family(v6)
				read, err := xt.Parse(tables.String())
				if err != nil || read.String() != tables.String() {
					t.Errorf("%v: reads back as\n%s\nwas\n%s", err, read, tables)
				}
				judge(t, got, v6, "nft")
				judge(t, got, v6, "legacy")
			}
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("plan differs from %s (-golden +plan), write it with -update:\n%s", file, d)
	}
}

// judge feeds the plan to iptables-restore --test.
func judge(t *testing.T, rules xt.Ruleset, v6 bool, variant string) {
	t.Helper()
	netns.Need(t)
	program := "iptables-" + variant + "-restore"
	if v6 {
		program = "ip6tables-" + variant + "-restore"
	}
	input := xt.RestoreInput(xt.Diff(rules, xt.Ruleset{}), v6)
	cmd := exec.Command(program, "--noflush", "--test")
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s\n%s", program, err, out, input)
	}
}

// TestUnion: the plan of all services is what Base and the plan of each bring, whatever comes first.
func TestUnion(t *testing.T) {
	for _, s := range stories() {
		union(t, s.name, s.planner, s.node, s.services)
	}
}

// union checks that every chain of the plan of all services holds the rules that Base and the plans of each service have for it, and no
// others, in the order of the services; in chains of others once.
func union(t *testing.T, what string, p iptables.Planner, n proxy.Node, services []api.ServicePort) {
	t.Helper()
	parts := []xt.Ruleset{p.Base(n)}
	for _, svc := range services {
		parts = append(parts, p.Plan(n, svc))
	}
	all := p.All(n, services)
	for _, v6 := range []bool{false, true} {
		want := map[string][]string{}
		for _, part := range parts {
			for k, lines := range linesOf(*part.Family(v6)) {
				want[k] = append(want[k], lines...)
			}
		}
		if d := cmp.Diff(want, linesOf(*all.Family(v6))); d != "" {
			t.Errorf("%s (-parts +all):\n%s", what, d)
		}
		for _, table := range *all.Family(v6) {
			for _, c := range table.Chains {
				for _, r := range c.Rules {
					if j, ok := r.Target.(xt.Jump); ok && all.Family(v6).Chain(table.Name, j.Chain) == nil {
						t.Errorf("%s: %s%s: there is no such chain", what, c.Name, r)
					}
				}
			}
		}
	}
}

// linesOf is the rules as text by table and chain.
func linesOf(tables xt.Tables) map[string][]string {
	out := map[string][]string{}
	for _, table := range tables {
		for _, c := range table.Chains {
			var lines []string
			for _, r := range c.Rules {
				lines = append(lines, r.String())
			}
			out[table.Name+" "+c.Name] = lines
		}
	}
	return out
}

// kubeProxy is what a kube-proxy in mode iptables has on the same host, and what its users add.
const kubeProxy = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SVC-ABCDEFGHIJKLMNOP - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-ABCDEFGHIJKLMNOP
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
COMMIT
`

// TestKernel applies every story after the other in both variants, beside a kube-proxy: the second time nothing is left to do, and in the
// end the rules of others are as they were.
func TestKernel(t *testing.T) {
	netns.Need(t)
	ctx := context.Background()
	for _, variant := range []string{"nft", "legacy"} {
		k := kernelxt.Kernel{Variant: variant}
		cmd := exec.Command("iptables-"+variant+"-restore", "--noflush")
		cmd.Stdin = strings.NewReader(kubeProxy)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		before := ""
		for i, s := range append([]story{{name: "before"}}, append(stories(), story{name: "after"})...) {
			var want xt.Ruleset
			if s.comment != "" {
				want = s.planner.All(s.node, s.services)
			}
			have, err := k.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Apply(ctx, xt.Diff(want, have)); err != nil {
				t.Fatalf("%s %s: %v", variant, s.name, err)
			}
			if have, err = k.Read(ctx); err != nil {
				t.Fatal(err)
			}
			if ops := xt.Diff(want, have); len(ops) > 0 {
				t.Errorf("%s %s: after Apply %d ops are left, the first: %s", variant, s.name, len(ops), ops[0])
			}
			if i == 0 {
				before = have.V4.String()
			} else if s.comment == "" && have.V4.String() != before {
				t.Errorf("%s: rules of others changed (-before +after):\n%s", variant, cmp.Diff(before, have.V4.String()))
			}
		}
	}
}

// TestOneEndpoint: a changed endpoint costs the chains of its service.
func TestOneEndpoint(t *testing.T) {
	var services []api.ServicePort
	for i := range 50 {
		services = append(services, with(nginx, func(s *api.ServicePort) {
			s.Name, s.ClusterIPs = named("s"+string(rune('a'+i%26))+string(rune('a'+i/26))), []netip.Addr{netip.AddrFrom4([4]byte{10, 254, 1, byte(i)})}
		}))
	}
	var p iptables.Planner
	have := p.All(node1, services)
	services[7].Endpoints = endpoints("172.16.28.5:80@kube-node1", "172.16.78.10:80@kube-node2")
	ops := xt.Diff(p.All(node1, services), have)
	if len(ops) != 7 { // the new endpoint's chain and its two rules, the old one's flush and removal, one rule for another
		t.Errorf("%d ops: %v", len(ops), ops)
	}
	for _, o := range ops {
		if !strings.HasPrefix(o.Chain, "WEFT-SEP-") && !strings.HasPrefix(o.Chain, "WEFT-SVC-") {
			t.Errorf("op elsewhere: %s", o)
		}
	}
}

// TestEvenShares: each of n endpoints is drawn with the same probability.
func TestEvenShares(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 100} {
		s := nginx
		s.Endpoints = nil
		for i := range n {
			s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, 1, byte(i)}), 80), Ready: true})
		}
		r := iptables.Planner{}.Plan(node1, s)
		left, draws := 1.0, 0
		for _, c := range r.V4[0].Chains {
			if !strings.HasPrefix(c.Name, "WEFT-SVC-") {
				continue
			}
			for _, rule := range c.Rules {
				if j, ok := rule.Target.(xt.Jump); !ok || !strings.HasPrefix(j.Chain, "WEFT-SEP-") {
					continue
				}
				share := left
				for _, m := range rule.Match {
					if st, ok := m.(xt.Statistic); ok {
						share = left * float64(st.Random) / (1 << 31)
					}
				}
				left -= share
				draws++
				if d := share*float64(n) - 1; d > 1e-6 || d < -1e-6 {
					t.Errorf("%d endpoints: one gets %f", n, share)
				}
			}
		}
		if draws != n {
			t.Errorf("%d endpoints: %d draws", n, draws)
		}
	}
}

// TestHostile plans services that no API server would let in.
func TestHostile(t *testing.T) {
	s := nginx
	s.ClusterIPs = append(addrs("::ffff:1.2.3.4", "fe80::1%eth0", "0.0.0.0", "10.254.0.1", "10.254.0.1"), netip.Addr{})
	s.External = append(addrs("10.254.0.1", "192.0.2.2"), netip.Addr{})
	s.LoadBalancer = append(prefixes("192.0.2.2/32", "192.0.2.2/32"), netip.Prefix{})
	s.SourceRanges = append(prefixes("10.0.0.1/8", "10.0.0.2/8", "::ffff:0.0.0.0/96"), netip.Prefix{})
	s.AffinitySeconds = 1 << 40
	s.Name.Name = "x\"y\\z'\n;" + strings.Repeat("long", 100)
	s.Endpoints = append(s.Endpoints, api.Endpoint{Ready: true}, s.Endpoints[0], api.Endpoint{Ready: true, Addr: netip.MustParseAddrPort("1.2.3.4:0")})
	got := iptables.Planner{}.All(node1, []api.ServicePort{s})
	if c := got.V4.Chain("nat", "WEFT-SERVICES"); len(c.Rules) != 2 || !strings.HasPrefix(c.Rules[1].Target.String(), "-j WEFT-FW-") {
		t.Errorf("want the cluster address, and the other one by its source ranges; have %v", c.Rules)
	}
	judge(t, got, false, "nft")
	for _, s := range []api.ServicePort{{}, {Protocol: "QUIC", Port: 1, ClusterIPs: addrs("1.2.3.4")}, {Protocol: api.TCP, ClusterIPs: addrs("1.2.3.4")}} {
		if r := (iptables.Planner{}).Plan(node1, s); r.String() != "" {
			t.Errorf("a plan for %+v: %s", s, r)
		}
	}
}
