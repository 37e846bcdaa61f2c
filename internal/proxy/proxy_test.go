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
