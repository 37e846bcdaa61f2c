package flows_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/proxy"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// scene is a service and the flows to it. A row is the client, where it sends to, and all fates there may be: "HOST<SOURCE" is an answer of
// HOST, which saw SOURCE (nameOf); "refused"; "timeout". "MODE=FATE" is the fate in one mode, where the modes differ.
type scene struct {
	name      string
	endpoints string // host, with "!" not ready, with "~" terminating and serving
	service   func(*api.ServicePort)
	node      func(*proxy.Node)
	all       bool // masquerade all
	sticky    bool // a client keeps one of the fates
	rows      string
}

func externalLocal(s *api.ServicePort) { s.ExternalLocal = true }
func internalLocal(s *api.ServicePort) { s.InternalLocal = true }

// onlyB lets only pod b use the load balancer addresses.
func onlyB(s *api.ServicePort) { s.SourceRanges = networks("b") }

func networks(hosts ...string) (out []netip.Prefix) {
	for _, h := range hosts {
		out = append(out, netip.PrefixFrom(addrOn(h, false, false), 24).Masked(), netip.PrefixFrom(addrOn(h, false, true), 64).Masked())
	}
	return out
}

var table = []scene{
	{name: "policy Cluster", endpoints: "a b", rows: `
		a        vip           b<a a<node
		b        vip           a<b b<node
		away     vip           a<away b<away
		node     vip           a<node b<node
		outside  vip           a<node b<node
		a        ext           a<node b<node
		node     ext           a<node b<node
		outside  ext           a<node b<node
		a        lb            a<node b<node
		outside  lb            a<node b<node
		a        port@a        a<node b<node
		away     port@away     a<node b<node
		node     port@outside  a<node b<node
		outside  port@outside  a<node b<node
		outside  port@a        a<node b<node
		node     port@lo       node<lo
		outside  a:80          a<outside
		a        vip:8081      nftables=refused iptables=timeout
	`},
	{name: "endpoint on another node", endpoints: "away", rows: `
		a        vip           away<a
		node     vip           away<node
		outside  vip           away<node
		outside  port@outside  away<node
		outside  ext           away<node
		outside  lb            away<node
		a        port@outside  away<node
	`},
	{name: "no endpoints", rows: `
		a        vip           refused
		away     vip           refused
		node     vip           refused
		outside  vip           refused
		a        ext           refused
		node     ext           refused
		outside  ext           refused
		outside  lb            refused
		a        port@a        refused
		node     port@outside  refused
		outside  port@outside  refused
		node     port@lo       node<lo
	`},
	{name: "none ready", endpoints: "a! away!", rows: `
		b        vip           refused
		outside  port@outside  refused
	`},
	{name: "terminating", endpoints: "a~ b!", rows: `
		b        vip           a<b
		node     vip           a<node
		outside  port@outside  a<node
	`},
	{name: "one terminating, one ready", endpoints: "a~ b", rows: `
		away     vip           b<away
		outside  ext           b<node
	`},
	{name: "external policy Local", endpoints: "a away", service: externalLocal, rows: `
		b        vip           a<b away<b
		b        ext           a<b away<b
		a        ext           a<node away<a
		node     ext           a<node away<node
		outside  ext           a<outside
		outside  lb            a<outside
		outside  port@outside  a<outside
		b        port@outside  a<b away<b
		node     port@outside  a<node away<node
		outside  vip           a<node away<node
	`},
	{name: "external policy Local, none here", endpoints: "away", service: externalLocal, rows: `
		b        ext           away<b
		node     ext           away<node
		outside  ext           timeout
		b        port@b        away<b
		outside  vip           away<node
	`},
	// The drop is an element of a verdict map, which explain.NFTables takes for a jump.
	{name: "external policy Local, none here, address of the node", endpoints: "away", service: externalLocal, rows: `
		outside  port@outside  timeout
		outside  port@a        timeout
		outside  lb            timeout
	`},
	{name: "external policy Local, none at all", service: externalLocal, rows: `
		outside  ext           refused
		outside  port@outside  refused
		b        ext           refused
	`},
	{name: "external policy Local, terminating here", endpoints: "a~ away", service: externalLocal, rows: `
		outside  ext           a<outside
		b        ext           away<b
	`},
	{name: "internal policy Local", endpoints: "b away", service: internalLocal, rows: `
		a        vip           b<a
		node     vip           b<node
		outside  vip           b<node
		outside  ext           b<node away<node
		a        port@a        b<node away<node
	`},
	{name: "internal policy Local, none here", endpoints: "away", service: internalLocal, rows: `
		a        vip           timeout
		node     vip           timeout
		outside  ext           away<node
	`},
	{name: "both policies Local", endpoints: "b away", service: func(s *api.ServicePort) { internalLocal(s); externalLocal(s) }, rows: `
		a        vip           b<a
		outside  port@outside  b<outside
		a        ext           b<a away<a
	`},
	{name: "source ranges", endpoints: "a", service: onlyB, rows: `
		b        lb            a<node
		away     lb            timeout
		node     lb            a<node
		outside  lb            timeout
		outside  ext           a<node
		outside  port@outside  a<node
		away     vip           a<away
	`},
	{name: "source ranges, no endpoints", service: onlyB, rows: `
		b        lb            refused
		outside  lb            timeout
		outside  ext           refused
	`},
	{name: "source ranges, external policy Local", endpoints: "a away", service: func(s *api.ServicePort) {
		s.ExternalLocal, s.SourceRanges = true, networks("outside", "b")
	}, rows: `
		outside  lb            a<outside
		b        lb            a<b away<b
		away     lb            timeout
	`},
	{name: "NodePorts on some addresses", endpoints: "b", node: func(n *proxy.Node) { n.NodePortAddresses = networks("outside") }, rows: `
		outside  port@outside  b<node
		a        port@a        node<a
		a        port@outside  b<node
	`},
	{name: "masquerade all", endpoints: "a b", all: true, rows: `
		a        vip           a<node b<node
		away     vip           a<node b<node
	`},
	{name: "pod networks unknown", endpoints: "a b", node: func(n *proxy.Node) { n.ClusterCIDRs = nil }, rows: `
		away     vip           a<away b<away
		outside  vip           a<outside b<outside
		node     vip           a<node b<node
		a        vip           a<node b<a
	`},
	{name: "several pod networks", endpoints: "a away", node: func(n *proxy.Node) { n.ClusterCIDRs = networks("a", "b", "away") }, service: externalLocal, rows: `
		b        vip           a<b away<b
		outside  vip           a<node away<node
		b        ext           a<b away<b
		outside  ext           a<outside
	`},
	{name: "session affinity", endpoints: "a b away", service: func(s *api.ServicePort) { s.AffinitySeconds = 600 }, sticky: true, rows: `
		outside  vip           a<node b<node away<node
		outside  port@outside  a<node b<node away<node
		node     vip           a<node b<node away<node
	`},
	{name: "session affinity, external policy Local", endpoints: "a b away", service: func(s *api.ServicePort) {
		s.AffinitySeconds, s.ExternalLocal = 600, true
	}, sticky: true, rows: `
		outside  ext           a<outside b<outside
		node     ext           a<node b<node away<node
	`},
}

// destination reads where a row sends to.
func destination(t *testing.T, s string, v6 bool) netip.AddrPort {
	t.Helper()
	addr := func(v4, v6text string) netip.Addr {
		if v6 {
			return netip.MustParseAddr(v6text)
		}
		return netip.MustParseAddr(v4)
	}
	switch link, is := strings.CutPrefix(s, "port@"); {
	case is && link == "lo":
		return netip.AddrPortFrom(addr("127.0.0.1", "::1"), nodePort)
	case is:
		return netip.AddrPortFrom(addrOn(link, true, v6), nodePort)
	}
	switch s {
	case "vip":
		return netip.AddrPortFrom(addr("10.254.0.1", "fd00:10::1"), port)
	case "vip:8081":
		return netip.AddrPortFrom(addr("10.254.0.1", "fd00:10::1"), port+1)
	case "ext":
		return netip.AddrPortFrom(addr("198.51.100.1", "2001:db8:1::1"), port)
	case "lb":
		return netip.AddrPortFrom(addr(balancers[0].String(), balancers[1].String()), port)
	case "a:80":
		return netip.AddrPortFrom(addrOn("a", false, v6), podPort)
	}
	t.Fatalf("no destination %q", s)
	return netip.AddrPort{}
}

// plan is the scene's service over TCP and UDP.
func (s scene) plan(t *testing.T) *plan {
	p := &plan{masqueradeAll: s.all, node: proxy.Node{
		Name: "node", Addresses: []netip.Addr{addrOn("outside", true, false), addrOn("outside", true, true)},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd00:16::/32")},
	}}
	if s.node != nil {
		s.node(&p.node)
	}
	for _, proto := range []api.Protocol{api.TCP, api.UDP} {
		svc := api.ServicePort{
			Name: api.ServicePortName{Namespace: "default", Name: "s", Port: string(proto)}, Protocol: proto, Port: port, NodePort: nodePort,
		}
		for _, v6 := range []bool{false, true} {
			svc.ClusterIPs = append(svc.ClusterIPs, destination(t, "vip", v6).Addr())
			svc.External = append(svc.External, destination(t, "ext", v6).Addr())
			lb := destination(t, "lb", v6).Addr()
			svc.LoadBalancer = append(svc.LoadBalancer, netip.PrefixFrom(lb, lb.BitLen()))
			for word := range strings.FieldsSeq(s.endpoints) {
				host := strings.TrimRight(word, "!~")
				e := api.Endpoint{Addr: netip.AddrPortFrom(addrOn(host, false, v6), podPort), Node: "node", Ready: host == word}
				e.Terminating = strings.HasSuffix(word, "~")
				e.Serving = e.Ready || e.Terminating
				if host == "away" {
					e.Node = "other"
				}
				svc.Endpoints = append(svc.Endpoints, e)
			}
		}
		if s.service != nil {
			s.service(&svc)
		}
		p.services = append(p.services, svc)
	}
	return p
}

// TestTable runs every row in every mode.
func TestTable(t *testing.T) {
	c := newCluster(t)
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			rows := 0
			for _, s := range table {
				t.Run(s.name, func(t *testing.T) {
					r := runner{c: c, t: t, sticky: s.sticky}
					r.planned, r.kernel = m.apply(t, s.plan(t))
					for line := range strings.Lines(strings.TrimSpace(s.rows)) {
						f := strings.Fields(line)
						for _, v6 := range []bool{false, true} {
							for _, proto := range []string{"tcp", "udp"} {
								r.row(f[0], proto, destination(t, f[1], v6), wanted(m.name, f[2:]))
								rows++
							}
						}
					}
				})
			}
			m.apply(t, nil)
			t.Logf("%d flows", rows)
		})
	}
}

// wanted are the fates of a row in a mode.
func wanted(mode string, fates []string) []string {
	var out []string
	for _, f := range fates {
		of, fate, some := strings.Cut(f, "=")
		switch {
		case !some:
			out = append(out, f)
		case of == mode:
			out = append(out, fate)
		}
	}
	slices.Sort(out)
	return out
}

// runner runs the rows of a scene.
type runner struct {
	c               *cluster
	t               *testing.T
	planned, kernel ruleset
	sticky          bool
}

// choices is more than the endpoints any scene has: every one is drawn.
const choices = 6

// row checks one flow three ways.
func (r *runner) row(from, proto string, to netip.AddrPort, want []string) {
	r.t.Helper()
	r.explain("the plan", r.planned, from, proto, to, want)
	r.explain("the kernel's rules", r.kernel, from, proto, to, want)
	got := r.real(from, proto, to, want)
	if r.sticky {
		if len(got) != 1 || !slices.Contains(want, got[0]) {
			r.t.Errorf("really: %s to %s %s: %q, want always the same of %q", from, proto, to, got, want)
		}
	} else if !slices.Equal(got, want) {
		r.t.Errorf("really: %s to %s %s: %q, want %q", from, proto, to, got, want)
	}
}

// explain checks what explain says of one flow over the rules.
func (r *runner) explain(over string, rules ruleset, from, proto string, to netip.AddrPort, want []string) {
	r.t.Helper()
	var got []string
	for k := range choices {
		got = append(got, r.c.explain(r.t, rules, from, proto, to, k))
	}
	slices.Sort(got)
	got = slices.Compact(got)
	outside := slices.ContainsFunc(got, func(f string) bool { return !slices.Contains(want, f) })
	// What a client was sent to before is no part of the rules: of those with affinity explain may name any.
	if outside || !r.sticky && !slices.Equal(got, want) {
		r.t.Errorf("explain over %s: %s to %s %s: %q, want %q", over, from, proto, to, got, want)
	}
}

// Attempts: chance leaves an endpoint of three out of maxAttempts once in 10^10 times.
const (
	minAttempts    = 2
	stickyAttempts = 8
	maxAttempts    = 60
)

// real sends packets until all wanted fates were seen, and once more, and returns what was seen.
func (r *runner) real(from, proto string, to netip.AddrPort, want []string) []string {
	patience, least := 5*time.Second, minAttempts
	if slices.Equal(want, []string{"timeout"}) {
		patience, least = 150*time.Millisecond, 1
	}
	if r.sticky {
		least = stickyAttempts
	}
	var got []string
	for i := 0; i < maxAttempts && (i < least || !r.sticky && len(got) < len(want)); i++ {
		fate := r.c.ask(from, proto, to, patience)
		if fate == "not permitted" && from == "node" && len(want) == 1 && (want[0] == "refused" || want[0] == "timeout") {
			fate = want[0]
		}
		if !slices.Contains(got, fate) {
			got = append(got, fate)
		}
		if !slices.Contains(want, fate) {
			break
		}
	}
	slices.Sort(got)
	return got
}
