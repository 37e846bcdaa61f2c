package proxy_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/proxy"
)

// dns is a UDP service with those endpoints, also at NodePort 30053.
func dns(endpoints ...string) api.ServicePort {
	s := api.ServicePort{
		Name: api.ServicePortName{Namespace: "default", Name: "dns"}, Protocol: api.UDP, Port: 53, NodePort: 30053,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.10")},
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: netip.MustParseAddrPort(e), Ready: true})
	}
	return s
}

// flowTest is a node with the address 172.17.42.31 and one flow of each kind.
type flowTest struct {
	t *testing.T
	f proxy.Flows
}

func (x *flowTest) local(a netip.Addr) bool { return a == netip.MustParseAddr("172.17.42.31") }

// expect checks which of the flows "to answerer" are stale after the change that touched the frontends.
func (x *flowTest) expect(what string, touched []proxy.Frontend, flows map[[2]string]bool) {
	x.t.Helper()
	set := map[proxy.Frontend]bool{}
	for _, f := range touched {
		set[f] = true
	}
	for flow, want := range flows {
		to, answerer := netip.MustParseAddrPort(flow[0]), netip.MustParseAddrPort(flow[1])
		if got := x.f.Stale(to, answerer, set, x.local); got != want {
			x.t.Errorf("%s: flow to %s answered by %s: stale %v, want %v", what, to, answerer, got, want)
		}
	}
}

func TestStaleFlows(t *testing.T) {
	const vip, port, other = "10.254.0.10:53", "172.17.42.31:30053", "10.254.0.10:54"
	x := &flowTest{t: t}
	set := func(s api.ServicePort) []proxy.Frontend { return x.f.Set(s, proxy.Serving(s)) }
	x.expect("first", set(dns("172.16.1.2:53", "172.16.2.2:53")), map[[2]string]bool{
		{vip, "172.16.1.2:53"}: false, {vip, "172.16.9.9:53"}: true, {vip, vip}: true, {port, "172.16.1.2:53"}: false,
		{port, "172.16.9.9:53"}: true, {"192.0.2.1:30053", "172.16.9.9:53"}: false, {other, "172.16.9.9:53"}: false,
	})
	if touched := set(dns("172.16.1.2:53", "172.16.2.2:53")); len(touched) > 0 {
		t.Errorf("nothing changed, touched %v", touched)
	}
	x.expect("endpoint gone", set(dns("172.16.2.2:53")), map[[2]string]bool{{vip, "172.16.1.2:53"}: true, {vip, "172.16.2.2:53"}: false})
	terminating := dns("172.16.2.2:53")
	terminating.Endpoints[0].Ready, terminating.Endpoints[0].Serving, terminating.Endpoints[0].Terminating = false, true, true
	x.expect("terminating", set(terminating), map[[2]string]bool{{vip, "172.16.2.2:53"}: false})
	x.expect("no endpoint", set(dns()), map[[2]string]bool{{vip, "172.16.2.2:53"}: true, {port, "172.16.2.2:53"}: true})
	x.expect("endpoints again", set(dns("172.16.3.2:53")), map[[2]string]bool{{vip, vip}: true, {vip, "172.16.3.2:53"}: false})
	moved := dns("172.16.3.2:53")
	moved.NodePort = 30054
	x.expect("NodePort changed", set(moved), map[[2]string]bool{
		{port, "172.16.3.2:53"}: true, {"172.17.42.31:30054", "172.16.3.2:53"}: false, {vip, "172.16.3.2:53"}: false,
	})
	x.expect("service gone", x.f.Remove(moved), map[[2]string]bool{{vip, "172.16.3.2:53"}: true, {"172.17.42.31:30054", "172.16.3.2:53"}: true})
	if len(x.f.All()) > 0 {
		t.Errorf("left: %v", x.f.All())
	}
}

// TestFlowsOfRelay is mode userspace: flows lead to a port of the node.
func TestFlowsOfRelay(t *testing.T) {
	x := &flowTest{t: t}
	touched := x.f.Set(dns("172.16.1.2:53"), []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 61000)})
	x.expect("relay", touched, map[[2]string]bool{
		{"10.254.0.10:53", "172.17.42.31:61000"}: false, {"10.254.0.10:53", "172.17.42.31:61001"}: true,
		{"10.254.0.10:53", "172.16.1.2:53"}: true, {"10.254.0.10:53", "192.0.2.1:61000"}: true,
	})
}

func TestOnlyUDP(t *testing.T) {
	s := dns("172.16.1.2:53")
	s.Protocol = api.TCP
	var f proxy.Flows
	if touched := f.Set(s, proxy.Serving(s)); len(touched) > 0 {
		t.Errorf("touched %v", touched)
	}
}

// TestSharedFrontend is an external address that two services have.
func TestSharedFrontend(t *testing.T) {
	a, b := dns("172.16.1.2:53"), dns("172.16.2.2:53")
	b.Name.Name = "other"
	x := &flowTest{t: t}
	x.f.Set(a, proxy.Serving(a))
	x.expect("both", x.f.Set(b, proxy.Serving(b)), map[[2]string]bool{{"10.254.0.10:53", "172.16.1.2:53"}: false, {"10.254.0.10:53", "172.16.2.2:53"}: false})
	x.expect("one gone", x.f.Remove(a), map[[2]string]bool{{"10.254.0.10:53", "172.16.1.2:53"}: true, {"10.254.0.10:53", "172.16.2.2:53"}: false})
	if !slices.Contains(x.f.All(), proxy.Frontend{Port: 30053}) {
		t.Error("the other service's NodePort is forgotten")
	}
}

func TestOrphans(t *testing.T) {
	x := &flowTest{t: t}
	s := dns("172.16.1.2:53")
	x.f.Set(s, proxy.Serving(s))
	services, pods := []netip.Prefix{netip.MustParsePrefix("10.254.0.0/16")}, []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}
	for flow, want := range map[[2]string]bool{
		{"10.254.0.10:53", "172.16.9.9:53"}: false, {"10.254.0.11:53", "172.16.9.9:53"}: true, {"172.17.42.31:30053", "172.16.9.9:53"}: false,
		{"172.17.42.31:30099", "172.16.9.9:53"}: true, {"172.17.42.31:53", "172.16.9.9:53"}: false, {"172.17.42.31:30099", "192.0.2.9:53"}: false,
	} {
		to, answerer := netip.MustParseAddrPort(flow[0]), netip.MustParseAddrPort(flow[1])
		if got := x.f.Orphan(to, answerer, services, pods, [2]uint16{30000, 32767}, x.local); got != want {
			t.Errorf("flow to %s answered by %s: orphan %v, want %v", to, answerer, got, want)
		}
	}
}
