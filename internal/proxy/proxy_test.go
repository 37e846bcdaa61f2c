package proxy_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/proxy"
)

func TestEndpoints(t *testing.T) {
	ap := netip.MustParseAddrPort
	a, b, c, d := ap("10.0.0.1:80"), ap("10.0.0.2:80"), ap("10.0.0.3:80"), ap("[fd00::1]:80")
	s := api.ServicePort{Endpoints: []api.Endpoint{
		{Addr: a, Node: "here", Ready: true},
		{Addr: b, Node: "there", Ready: true},
		{Addr: c, Node: "here", Serving: true, Terminating: true},
		{Addr: d, Node: "there", Ready: true},
	}}
	stopping := s
	stopping.Endpoints = slices.Clone(s.Endpoints)
	stopping.Endpoints[0].Ready = false
	for _, x := range []struct {
		s    api.ServicePort
		v6   bool
		in   proxy.Scope
		want []netip.AddrPort
	}{
		{s, false, proxy.Cluster, []netip.AddrPort{a, b}},
		{s, false, proxy.Local, []netip.AddrPort{a}},
		{s, true, proxy.Cluster, []netip.AddrPort{d}},
		{s, true, proxy.Local, nil},
		{stopping, false, proxy.Cluster, []netip.AddrPort{b}},
		{stopping, false, proxy.Local, []netip.AddrPort{c}}, // terminating, and the only one here
	} {
		if got := proxy.Endpoints(proxy.Node{Name: "here"}, x.s, x.v6, x.in); !slices.Equal(got, x.want) {
			t.Errorf("v6 %v, scope %d: %v, want %v", x.v6, x.in, got, x.want)
		}
	}
	if len(s.Endpoints) != 4 {
		t.Error("the service was changed")
	}
}

func TestScopes(t *testing.T) {
	s := api.ServicePort{ExternalLocal: true}
	if proxy.Internal(s) != proxy.Cluster || proxy.External(s) != proxy.Local || proxy.Exposed(s) {
		t.Error("a cluster service with externalTrafficPolicy Local")
	}
	s = api.ServicePort{InternalLocal: true, NodePort: 30000}
	if proxy.Internal(s) != proxy.Local || proxy.External(s) != proxy.Cluster || !proxy.Exposed(s) {
		t.Error("a NodePort service with internalTrafficPolicy Local")
	}
}

// TestNear checks which endpoints hints leave to a node.
func TestNear(t *testing.T) {
	ap := netip.MustParseAddrPort
	a, b, c := ap("10.0.0.1:80"), ap("10.0.0.2:80"), ap("10.0.0.3:80")
	hinted := func(zones, nodes [3]string) api.ServicePort {
		var s api.ServicePort
		for i, addr := range []netip.AddrPort{a, b, c} {
			s.Endpoints = append(s.Endpoints, api.Endpoint{
				Addr: addr, Ready: true, ZoneHints: api.NamesOf(zones[i]), NodeHints: api.NamesOf(nodes[i]),
			})
		}
		return s
	}
	here := proxy.Node{Name: "here", Zone: "z1"}
	for name, x := range map[string]struct {
		s    api.ServicePort
		n    proxy.Node
		want []netip.AddrPort
	}{
		"zone":                    {hinted([3]string{"z1", "z2", "z1"}, [3]string{}), here, []netip.AddrPort{a, c}},
		"node before zone":        {hinted([3]string{"z1", "z1", "z1"}, [3]string{"here", "there", "there"}), here, []netip.AddrPort{a}},
		"no node hint, zone":      {hinted([3]string{"z1", "z2", "z2"}, [3]string{"x", "there", "there"}), here, []netip.AddrPort{a}},
		"one hint missing":        {hinted([3]string{"z1", "", "z2"}, [3]string{}), here, []netip.AddrPort{a, b, c}},
		"no endpoint of the zone": {hinted([3]string{"z2", "z2", "z2"}, [3]string{}), here, []netip.AddrPort{a, b, c}},
		"node without zone":       {hinted([3]string{"z1", "z2", "z2"}, [3]string{}), proxy.Node{Name: "here"}, []netip.AddrPort{a, b, c}},
		"none":                    {hinted([3]string{}, [3]string{}), here, []netip.AddrPort{a, b, c}},
	} {
		if got := proxy.Endpoints(x.n, x.s, false, proxy.Cluster); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
	terminating := hinted([3]string{"z1", "z2", "z2"}, [3]string{})
	for i := range terminating.Endpoints {
		terminating.Endpoints[i].Ready, terminating.Endpoints[i].Serving, terminating.Endpoints[i].Terminating = false, true, true
	}
	if got := proxy.Endpoints(here, terminating, false, proxy.Cluster); len(got) != 3 {
		t.Errorf("terminating endpoints by hints: %v", got)
	}
	local := hinted([3]string{"z2", "z2", "z1"}, [3]string{})
	local.Endpoints[0].Node = "here"
	if got := proxy.Endpoints(here, local, false, proxy.Local); !slices.Equal(got, []netip.AddrPort{a}) {
		t.Errorf("policy Local by hints: %v", got)
	}
}
