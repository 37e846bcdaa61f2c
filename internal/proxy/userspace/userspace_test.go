package userspace_test

import (
	"flag"
	"fmt"
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
	"weft/internal/netstate"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// The planners of all modes have one shape.
type backend struct{ ports userspace.Ports }

func (b backend) Plan(n proxy.Node, s api.ServicePort) xt.Ruleset {
	return userspace.Rules(n, s, b.ports)
}

var _ proxy.Backend[xt.Ruleset] = backend{}

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
	node1 = proxy.Node{
		Name: "kube-node1", LocalhostNodePorts: true, Addresses: addrs("172.17.42.31"), ClusterCIDRs: prefixes("172.16.0.0/12", "fd00:16::/48"),
	}
	nginx = api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "my-nginx-service"}, Protocol: api.TCP,
		ClusterIPs: addrs("10.254.247.121"), Port: 8080, Endpoints: endpoints("172.16.78.9:80@kube-node2", "172.16.78.10:80@kube-node2"),
	}
)

func with(s api.ServicePort, f func(*api.ServicePort)) api.ServicePort { f(&s); return s }

func dualStack() proxy.Node {
	n := node1
	n.Addresses = addrs("172.17.42.31", "fd00:17::31")
	return n
}

type story struct {
	name, comment string
	node          proxy.Node
	services      []api.ServicePort
}

func stories() []story {
	named := func(name, port string) api.ServicePortName {
		return api.ServicePortName{Namespace: "default", Name: name, Port: port}
	}
	return []story{
		{"walkthrough", "The walkthrough's service on kube-node1.", node1, []api.ServicePort{nginx}},
		{"empty", "No service at all: the chains and their jumps.", node1, nil},
		{"noendpoints", "Services without a ready endpoint are rejected; one that is terminating still serves.", node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.Endpoints = nil; s.NodePort = 30080; s.External = addrs("192.0.2.1") }),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.Endpoints = named("b", "x"), addrs("10.254.0.9"), endpoints("172.16.78.9:80!", "172.16.78.10:80~")
			}),
		}},
		{"dualstack", "Both families, TCP and UDP on one port, a named port.", dualStack(), []api.ServicePort{
			{
				Name: named("dns", "dns-tcp"), Protocol: api.TCP, ClusterIPs: addrs("10.254.0.10", "fd00:10::10"), Port: 53,
				Endpoints: endpoints("172.16.28.5:53", "[fd00:16::5]:53"),
			},
			{
				Name: named("dns", "dns"), Protocol: api.UDP, ClusterIPs: addrs("10.254.0.10", "fd00:10::10"), Port: 53,
				Endpoints: endpoints("172.16.28.5:53"), AffinitySeconds: 10800,
			},
		}},
		{"nodeport", "NodePort and external address.", node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.NodePort = 30080; s.External = addrs("192.0.2.1") }),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.Protocol, s.NodePort = named("u", "x"), addrs("10.254.0.9"), api.UDP, 30081
			}),
		}},
		{"nodeportaddresses", "NodePorts on some addresses only.", func() proxy.Node {
			n := dualStack()
			n.NodePortAddresses = prefixes("172.17.0.0/16", "127.0.0.0/8")
			return n
		}(), []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.NodePort = 30080
				s.Endpoints = append(s.Endpoints, endpoints("[fd00:16::5]:53")...)
			}),
		}},
		{"policylocal", "Traffic policies Local: pods and the node reach all endpoints by the external addresses.", node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.NodePort, s.ExternalLocal, s.LoadBalancer = 30080, true, prefixes("198.51.100.7/32")
				s.Endpoints = append(s.Endpoints, endpoints("172.16.28.6:80@kube-node1")...)
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.NodePort, s.ExternalLocal = named("remote", ""), addrs("10.254.0.9"), 30081, true
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.InternalLocal = named("internal", ""), addrs("10.254.0.10"), true
			}),
		}},
		{"sourceranges", "A load balancer address for some sources only.", node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.LoadBalancer, s.SourceRanges = prefixes("198.51.100.7/32"), prefixes("203.0.113.0/24", "172.16.5.0/24", "fd00::/8")
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.ExternalLocal = named("local", ""), addrs("10.254.0.9"), true
				s.LoadBalancer, s.SourceRanges = prefixes("198.51.100.8/32"), prefixes("203.0.113.0/24", "172.16.5.0/24", "172.0.0.0/8")
				s.Endpoints = endpoints("172.16.28.6:80@kube-node1")
			}),
		}},
		{"sctp", "A protocol the mode can't serve is rejected.", node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.Protocol = api.SCTP }),
		}},
	}
}

// hold gives every listener the port the relay would hold: counted from the walkthrough's.
func hold(listeners []netstate.Listener) userspace.Ports {
	ports := userspace.Ports{}
	for i, l := range listeners {
		ports[l.Key()] = uint16(50948 + i)
	}
	return ports
}

func TestStories(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			ports := hold(userspace.AllListeners(s.node, s.services, nil))
			listeners := ""
			for _, l := range userspace.AllListeners(s.node, s.services, ports) {
				listeners += l.String() + "\n"
			}
			rules := userspace.AllRules(s.node, s.services, ports)
			got := &txtar.Archive{Comment: []byte(s.comment + "\n"), Files: []txtar.File{
				{Name: "listeners", Data: []byte(listeners)},
				{Name: "iptables-save", Data: []byte(rules.V4.String())},
				{Name: "ip6tables-save", Data: []byte(rules.V6.String())},
			}}
			golden(t, filepath.Join("testdata", s.name+".txtar"), txtar.Format(got))
			restoreTest(t, rules)
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
		t.Errorf("%s (-golden +got):\n%s", file, d)
	}
}

// restoreTest lets both variants of iptables-restore judge the plan.
func restoreTest(t *testing.T, rules xt.Ruleset) {
	t.Helper()
	netns.Need(t)
	ops := xt.Diff(rules, xt.Ruleset{})
	for _, variant := range []string{"nft", "legacy"} {
		for _, v6 := range []bool{false, true} {
			program := "iptables-" + variant + "-restore"
			if v6 {
				program = "ip6tables-" + variant + "-restore"
			}
			cmd := exec.Command(program, "--noflush", "--test")
			cmd.Stdin = strings.NewReader(xt.RestoreInput(ops, v6))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", program, err, out, xt.RestoreInput(ops, v6))
			}
		}
	}
}

// TestWalkthrough compares with the article itself: its lines, apart from the port.
func TestWalkthrough(t *testing.T) {
	text := userspace.AllRules(node1, []api.ServicePort{nginx}, userspace.Ports{"default/my-nginx-service: TCP": 50948}).V4.String()
	for _, line := range []string{
		`-A PREROUTING -m comment --comment "handle ClusterIPs; NOTE: this must be before the NodePort rules" -j KUBE-PORTALS-CONTAINER`,
		`-A OUTPUT -m comment --comment "handle ClusterIPs; NOTE: this must be before the NodePort rules" -j KUBE-PORTALS-HOST`,
		`-A KUBE-PORTALS-CONTAINER -d 10.254.247.121/32 -p tcp -m comment --comment "default/my-nginx-service:" -m tcp --dport 8080` +
			` -j REDIRECT --to-ports 50948`,
		`-A KUBE-PORTALS-HOST -d 10.254.247.121/32 -p tcp -m comment --comment "default/my-nginx-service:" -m tcp --dport 8080` +
			` -j DNAT --to-destination 172.17.42.31:50948`,
	} {
		if strings.Count(text, line+"\n") != 1 {
			t.Errorf("not there once: %s\n%s", line, text)
		}
	}
}

// TestPortsKept: a listener asks for the port it held, whatever happens to its endpoints.
func TestPortsKept(t *testing.T) {
	held := userspace.Ports{"default/my-nginx-service: TCP": 50948}
	for _, eps := range [][]api.Endpoint{nil, endpoints("172.16.78.9:80"), endpoints("172.16.28.9:80", "172.16.78.9:80")} {
		s := nginx
		s.Endpoints = eps
		ls := userspace.Listeners(node1, s, held)
		if len(ls) != 1 || ls[0].Addr != netip.MustParseAddrPort("[::]:50948") || len(ls[0].Endpoints) != len(eps) {
			t.Errorf("listeners %v", ls)
		}
	}
}

// TestUnion: the full plan is the union of the plans of each service, in any order.
func TestUnion(t *testing.T) {
	for _, s := range stories() {
		ports := hold(userspace.AllListeners(s.node, s.services, nil))
		all := userspace.AllRules(s.node, s.services, ports)
		parts := []xt.Ruleset{userspace.Base(s.node)}
		for _, svc := range s.services {
			parts = append(parts, backend{ports}.Plan(s.node, svc))
		}
		if d := cmp.Diff(all.String(), xt.Union(parts...).String()); d != "" {
			t.Errorf("%s (-all +union):\n%s", s.name, d)
		}
	}
}

func BenchmarkAllRules(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		var services []api.ServicePort
		ports := userspace.Ports{}
		for i := range n {
			s := nginx
			s.Name.Name = fmt.Sprintf("s%05d", i)
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)})}
			ports[userspace.Listeners(node1, s, nil)[0].Key()] = uint16(i + 1)
			services = append(services, s)
		}
		b.Run(fmt.Sprint("plan/", n), func(b *testing.B) {
			for b.Loop() {
				userspace.AllRules(node1, services, ports)
			}
		})
		have := userspace.AllRules(node1, services, ports)
		services[n/2].Endpoints = nil
		want := userspace.AllRules(node1, services, ports)
		b.Run(fmt.Sprint("diff/", n), func(b *testing.B) {
			for b.Loop() {
				if len(xt.Diff(want, have)) != 7 {
					b.Fatal(xt.Diff(want, have))
				}
			}
		})
	}
}
