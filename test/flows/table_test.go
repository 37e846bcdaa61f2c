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
	case "vip2":
		return netip.AddrPortFrom(addr("10.254.0.2", "fd00:10::2"), port)
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

// only reads what stands behind a slash and reports whether it holds for a protocol and family.
func only(tags []string, proto string, v6 bool) bool {
	for _, tag := range tags {
		if tag == "v4" && v6 || tag == "v6" && !v6 || (tag == "tcp" || tag == "udp") && tag != strings.ToLower(proto) {
			return false
		}
	}
	return true
}

// plan is the scene's service over TCP and UDP.
func (s scene) plan(t *testing.T) *plan {
	p := &plan{masqueradeAll: s.all, node: proxy.Node{
		Name: "node", Zone: "z1", LocalhostNodePorts: true, Addresses: []netip.Addr{addrOn("outside", true, false), addrOn("outside", true, true)},
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
				tags := strings.Split(word, "/")
				word = tags[0]
				if !only(tags[1:], string(proto), v6) {
					continue
				}
				host := strings.TrimRight(word, "!~")
				e := api.Endpoint{Addr: netip.AddrPortFrom(addrOn(host, false, v6), podPort), Node: "node", Ready: host == word}
				e.Terminating = strings.HasSuffix(word, "~")
				e.Serving = e.Ready || e.Terminating
				switch host {
				case "away":
					e.Node = "other"
				case "node": // a process of the host
					e.Addr = netip.AddrPortFrom(addrOn("outside", true, v6), port)
				}
				svc.Endpoints = append(svc.Endpoints, e)
			}
		}
		if s.service != nil {
			s.service(&svc)
		}
		p.services = append(p.services, svc)
	}
	if s.more != nil {
		s.more(p)
	}
	p.services, _ = proxy.Shares(p.services)
	return p
}

// TestTable runs every row in every mode.
func TestTable(t *testing.T) {
	c := newCluster(t)
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			rows, flows := 0, 0
			for _, s := range table {
				t.Run(s.name, func(t *testing.T) {
					r := runner{c: c, t: t, sticky: s.sticky}
					r.planned, r.kernel = m.apply(t, s.plan(t))
					for line := range strings.Lines(strings.TrimSpace(s.rows)) {
						rows++
						f := strings.Fields(line)
						to := strings.Split(f[1], "/")
						for _, v6 := range []bool{false, true} {
							for _, proto := range []string{"tcp", "udp"} {
								if only(to[1:], proto, v6) {
									r.row(f[0], proto, destination(t, to[0], v6), wanted(m.name, to[0], f[2:]))
									flows++
								}
							}
						}
					}
				})
			}
			m.apply(t, nil)
			if t.Logf("%d rows, %d flows", rows, flows); rows < 150 {
				t.Errorf("%d rows: issue 4 wants 150 at least", rows)
			}
		})
	}
}

// wanted are the fates of a row in a mode.
func wanted(mode, to string, fates []string) []string {
	var out []string
	named := slices.ContainsFunc(fates, func(f string) bool { return strings.HasPrefix(f, mode+"=") })
	for _, f := range fates {
		of, fate, some := strings.Cut(f, "=")
		switch {
		case !some && named:
		case !some && mode == "userspace" && to != "a:80":
			host, _, answered := strings.Cut(f, "<")
			if answered && host != "node" {
				f = host + "<node"
			}
			out = append(out, f)
		case !some:
			out = append(out, f)
		case of == mode:
			out = append(out, fate)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
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
	patience, least := 15*time.Second, minAttempts
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
