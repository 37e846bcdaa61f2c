package nftables_test

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/maglev"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/nftables"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

var _ proxy.Backend[nft.Table] = nftables.Planner{}

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
		Name: "kube-node1", Addresses: addrs("172.17.42.31"), ClusterCIDRs: prefixes("172.16.0.0/12", "fd00:16::/48"),
	}
	nginx = api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "my-nginx-service"}, Protocol: api.TCP,
		ClusterIPs: addrs("10.254.247.121"), Port: 8080, Endpoints: endpoints("172.16.28.5:80@kube-node1", "172.16.78.9:80@kube-node2"),
	}
)

func with(s api.ServicePort, f func(*api.ServicePort)) api.ServicePort { f(&s); return s }

type story struct {
	name, comment string
	planner       nftables.Planner
	node          proxy.Node
	services      []api.ServicePort
}

func named(name string) api.ServicePortName {
	return api.ServicePortName{Namespace: "default", Name: name}
}

func stories() []story {
	narrow := node1
	narrow.NodePortAddresses = prefixes("172.17.0.0/16")
	plain := node1
	plain.ClusterCIDRs = nil
	return []story{
		{"empty", "No service at all: the hooks and the maps they look up.", nftables.Planner{}, node1, nil},
		{"walkthrough", "The walkthrough's service on kube-node1, one endpoint of it here.", nftables.Planner{}, node1, []api.ServicePort{nginx}},
		{"noendpoints", "Services without a ready endpoint are rejected; one that is terminating still serves.", nftables.Planner{}, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.Endpoints = nil; s.NodePort = 30080; s.External = addrs("192.0.2.1") }),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.Endpoints = named("b"), addrs("10.254.0.9"), endpoints("172.16.78.9:80!", "172.16.78.10:80~")
			}),
		}},
		{"dualstack", "Both families; TCP and UDP on one port.", nftables.Planner{}, node1, []api.ServicePort{
			{
				Name: api.ServicePortName{Namespace: "default", Name: "dns", Port: "dns-tcp"}, Protocol: api.TCP,
				ClusterIPs: addrs("10.254.0.10", "fd00:10::10"), Port: 53, Endpoints: endpoints("172.16.28.5:53", "[fd00:16::5]:53"),
			},
			{
				Name: api.ServicePortName{Namespace: "default", Name: "dns", Port: "dns"}, Protocol: api.UDP,
				ClusterIPs: addrs("10.254.0.10", "fd00:10::10"), Port: 53, Endpoints: endpoints("172.16.28.5:53"),
			},
		}},
		{"nodeport", "NodePort, external and load balancer address; NodePorts on some addresses only.", nftables.Planner{}, narrow, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.NodePort, s.External, s.LoadBalancer = 30080, addrs("192.0.2.1"), prefixes("192.0.2.2/32")
				s.SourceRanges = prefixes("203.0.113.0/24", "203.0.113.128/25", "198.51.100.7/32")
			}),
			with(nginx, func(s *api.ServicePort) {
				s.Name, s.ClusterIPs, s.Protocol, s.NodePort = named("u"), addrs("10.254.0.9"), api.SCTP, 30081
			}),
		}},
		{"policylocal", "Traffic policies Local: with an endpoint on the node, with none on it, with none at all.", nftables.Planner{}, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.NodePort, s.ExternalLocal, s.InternalLocal = 30080, true, true }),
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
		{"affinity", "Session affinity by client address.", nftables.Planner{}, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.AffinitySeconds, s.NodePort = 10800, 30080 }),
		}},
		{
			"masqueradeall",
			"All connections masqueraded, with another mark; source ports kept.",
			nftables.Planner{MasqueradeAll: true, Mark: 0x8000, KeepPorts: true, Liberal: true},
			plain,
			[]api.ServicePort{nginx},
		},
		{"weights", "Weights: the endpoint on kube-node2 gets three times as many.", nftables.Planner{}, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) {
				s.Endpoints = slices.Clone(s.Endpoints)
				s.Endpoints[1].Weight = 3
			}),
		}},
		{"maglev", "Consistent hashing, by address and by NodePort; the long lists are cut.", nftables.Planner{}, node1, []api.ServicePort{
			with(nginx, func(s *api.ServicePort) { s.Balance, s.NodePort = api.Maglev, 30080 }),
		}},
		{"nocidr", "Pod networks not known: clients keep their source.", nftables.Planner{}, plain, []api.ServicePort{nginx}},
	}
}

func plan(p nftables.Planner, n proxy.Node, services []api.ServicePort) nft.Table {
	f := map[string]nft.Table{"": p.Base(n)}
	for _, s := range services {
		f[s.Name.String()+"/"+string(s.Protocol)] = p.Plan(n, s)
	}
	return nft.Union(f)
}

func TestGolden(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			got := plan(s.planner, s.node, s.services)
			for i := range got.Sets {
				if e := &got.Sets[i].Elements; len(*e) > 64 {
					*e = (*e)[:6]
				}
			}
			file := filepath.Join("testdata", s.name+".txtar")
			if *update {
				a := &txtar.Archive{Comment: []byte(s.comment + "\n"), Files: []txtar.File{{Name: "ruleset.nft", Data: []byte(got.String())}}}
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(a.Files[0].Data), got.String()); d != "" {
				t.Errorf("plan differs from %s (-golden +plan), write it with -update:\n%s", file, d)
			}
		})
	}
}

// TestGoldenIsAccepted feeds the goldens to nft(8), and to our own parser.
func TestGoldenIsAccepted(t *testing.T) {
	netns.Need(t)
	files, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(a.Files[0].Data)
		cmd := exec.Command("nft", "-c", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: nft -c: %v\n%s", file, err, out)
		}
		table, err := nft.ParseTable(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if d := cmp.Diff(text, table.String()); d != "" {
			t.Errorf("%s: parsed and printed again:\n%s", file, d)
		}
	}
}

// TestPlanIsUnion checks that the plan of all services is the union of the plans of each, in whatever order they come and go.
func TestPlanIsUnion(t *testing.T) {
	for _, s := range stories() {
		want := plan(s.planner, s.node, s.services)
		m := nft.NewMerge(nft.INet, nft.TableName)
		have := nft.Apply(nil, m.Set("junk", s.planner.Plan(s.node, nginx))...)
		for _, x := range slices.Backward(s.services) {
			have = nft.Apply(have, m.Set(x.Name.String()+"/"+string(x.Protocol), s.planner.Plan(s.node, x))...)
		}
		have = nft.Apply(have, m.Set("", s.planner.Base(s.node))...)
		have = nft.Apply(have, m.Set("junk", nft.Table{})...)
		if d := cmp.Diff(want.String(), have.String()); d != "" {
			t.Errorf("%s: %s", s.name, d)
		}
	}
}

// TestOneEndpoint checks that a changed endpoint costs the elements of its service, and none with a verdict.
func TestOneEndpoint(t *testing.T) {
	m := nft.NewMerge(nft.INet, nft.TableName)
	m.Set("", nftables.Planner{}.Base(node1))
	for i := range 100 {
		s := nginx
		s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 254, 1, byte(i)})}
		m.Set(strconv.Itoa(i), nftables.Planner{}.Plan(node1, s))
	}
	s := nginx
	s.ClusterIPs = addrs("10.254.1.7")
	s.Endpoints = endpoints("172.16.28.5:80@kube-node1", "172.16.78.10:80@kube-node2")
	ops := m.Set("7", nftables.Planner{}.Plan(node1, s))
	want := "delete element inet weft eps4 { 10.254.1.7 . tcp . 8080 . 1, 10.254.1.7 . tcp . 8080 . 3 }; " +
		"add element inet weft eps4 { 10.254.1.7 . tcp . 8080 . 1 : 172.16.78.10 . 80, 10.254.1.7 . tcp . 8080 . 3 : 172.16.78.10 . 80 }"
	if len(ops) != 1 || ops[0].String() != want {
		t.Errorf("have %v\nwant [%s]", ops, want)
	}
	for n := range 5 { // down to none, and up to four
		s.Endpoints = nil
		for i := range n {
			s.Endpoints = append(s.Endpoints, endpoints("172.16.28."+strconv.Itoa(i+5)+":80")...)
		}
		for _, op := range m.Set("7", nftables.Planner{}.Plan(node1, s)) {
			if op.Set.Name != "eps4" && op.Set.Name != "hairpin4" || !strings.Contains(op.String(), "10.254.1.7") && op.Set.Name == "eps4" {
				t.Errorf("%d endpoints: op of another service, or one that makes the kernel check the table: %s", n, op)
			}
		}
	}
}

// TestSlots checks that every endpoint has equally many slots, that most slots are full and the ones of the last draw all.
func TestSlots(t *testing.T) {
	for n := 1; n <= 300; n++ {
		s := nginx
		s.Endpoints = nil
		for i := range n {
			a := netip.AddrFrom4([4]byte{172, 16, byte(i / 256), byte(i)})
			s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(a, 80), Ready: true})
		}
		table := nftables.Planner{}.Plan(node1, s)
		var chain nft.Chain
		for _, c := range table.Chains {
			if strings.HasPrefix(c.Name, "c") {
				chain = c
			}
		}
		all := int(chain.Rules[1].Statements[0].(nft.DNAT).Key[3].Mod)
		last := int(chain.Rules[len(chain.Rules)-2].Statements[0].(nft.DNAT).Key[3].Mod)
		eps := table.Set("eps4").Elements
		of := map[nft.Tuple]int{}
		for _, e := range eps {
			of[e.Data]++
		}
		for to, c := range of {
			if c*n != len(eps) {
				t.Errorf("%d endpoints: %s has %d of %d slots", n, to.Text(table.Set("eps4").Data), c, len(eps))
			}
		}
		if len(of) != n || len(eps) > all || 2*len(eps) <= all || last > len(eps) {
			t.Errorf("%d endpoints: %d in %d of %d slots, the last draw is among %d", n, len(of), len(eps), all, last)
		}
	}
}

// TestMaglev checks that every slot is full, as the table says, and that one endpoint less changes few slots, none with a verdict.
func TestMaglev(t *testing.T) {
	s := nginx
	s.Balance, s.Endpoints = api.Maglev, nil
	for i := range 20 {
		a := netip.AddrFrom4([4]byte{172, 16, 1, byte(i)})
		s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(a, 80), Ready: true})
	}
	list := proxy.Endpoints(node1, s, false, proxy.Cluster)
	m := nft.NewMerge(nft.INet, nft.TableName)
	m.Set("a", nftables.Planner{}.Plan(node1, s))
	table := m.Table()
	eps := table.Set("eps4")
	if len(eps.Elements) != maglev.Size(20) {
		t.Fatalf("%d elements", len(eps.Elements))
	}
	for client := netip.MustParseAddr("172.16.9.0"); client.As4()[3] < 100; client = client.Next() {
		key := make(nft.TupleBuilder, 0, 32).Addr(nginx.ClusterIPs[0]).Proto(nft.TCP).Port(8080).Num(maglev.Slot(client, 1021, maglev.Seed)).Tuple()
		e, ok := m.Element("eps4", key)
		if to := e.Data.Values(eps.Data); !ok || netip.AddrPortFrom(to[0].Addr, uint16(to[1].Num)) != maglev.Endpoint(client, list, nil) {
			t.Fatalf("%s: %v, want %s", client, to, maglev.Endpoint(client, list, nil))
		}
	}
	s.Endpoints = slices.Delete(slices.Clone(s.Endpoints), 3, 4)
	ops := m.Set("a", nftables.Planner{}.Plan(node1, s))
	n := 0
	for _, op := range ops {
		if op.Set.Name != "eps4" {
			t.Errorf("op on another set: %s", op)
		}
		n += op.Count()
	}
	if n > 2*1021/20*2 { // a change is a deletion and an addition
		t.Errorf("%d ops for one endpoint of 20", n)
	}
}

// TestHostile plans services that no API server would let in.
func TestHostile(t *testing.T) {
	s := nginx
	s.ClusterIPs = append(addrs("::ffff:1.2.3.4", "fe80::1%eth0", "0.0.0.0", "10.254.0.1", "10.254.0.1"), netip.Addr{})
	s.External = []netip.Addr{{}}
	s.LoadBalancer = []netip.Prefix{{}}
	s.SourceRanges = append(prefixes("10.0.0.1/8", "::ffff:0.0.0.0/96"), netip.Prefix{})
	s.Endpoints = append(s.Endpoints, api.Endpoint{Ready: true}, s.Endpoints[0], api.Endpoint{Ready: true, Addr: netip.MustParseAddrPort("1.2.3.4:0")})
	got := plan(nftables.Planner{}, node1, []api.ServicePort{s})
	if vips := got.Set("vips4"); len(vips.Elements) != 1 {
		t.Errorf("have %s", vips)
	}
	for _, s := range []api.ServicePort{{}, {Protocol: "QUIC", Port: 1, ClusterIPs: addrs("1.2.3.4")}, {Protocol: api.TCP, ClusterIPs: addrs("1.2.3.4")}} {
		if f := (nftables.Planner{}).Plan(node1, s); len(f.Chains)+len(f.Sets) > 0 {
			t.Errorf("a plan for %+v: %s", s, f)
		}
	}
}

// TestNoHash: where the kernel can't hash, a service that asks for consistent hashing draws at random, and nothing in the plan hashes.
func TestNoHash(t *testing.T) {
	s := nginx
	s.Balance = api.Maglev
	n := node1
	n.NoHash = true
	plain := nginx
	want := nftables.Planner{}.Plan(n, plain)
	got := nftables.Planner{}.Plan(n, s)
	if got.String() != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if hashes := (nftables.Planner{}).Plan(node1, s); !strings.Contains(hashes.String(), "jhash") {
		t.Errorf("no hash in\n%s", hashes)
	}
}
