package rules

import (
	"fmt"
	"testing"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
)

func servicesNamed(n int) []api.ServicePort {
	out := make([]api.ServicePort, n)
	for i := range out {
		out[i] = api.ServicePort{Name: api.ServicePortName{Namespace: "default", Name: fmt.Sprintf("s%d", i)}, Protocol: api.TCP, Port: 80}
	}
	return out
}

func TestPreferredPorts(t *testing.T) {
	n := proxy.Node{Name: "kube-node1"}
	a := preferredPorts(n, servicesNamed(1000), nil)
	seen := map[uint16]string{}
	for key, p := range a {
		if p < FirstPort || int(p) >= FirstPort+portCount {
			t.Fatalf("%s has port %d, out of the range", key, p)
		}
		if other, dup := seen[p]; dup {
			t.Fatalf("%s and %s share port %d", key, other, p)
		}
		seen[p] = key
	}
	if len(a) != 1000 {
		t.Fatalf("%d ports for 1000 services", len(a))
	}
	again := preferredPorts(n, servicesNamed(1000), nil)
	other := preferredPorts(proxy.Node{Name: "kube-node2"}, servicesNamed(1), nil)
	differ := false
	for key, p := range a {
		if again[key] != p {
			t.Fatalf("%s: port %d, then %d", key, p, again[key])
		}
		if q, ok := other[key]; ok && q != p {
			differ = true
		}
	}
	if !differ {
		t.Error("both nodes chose the same port")
	}
	held := preferredPorts(n, servicesNamed(2), userspace.Ports{"default/s0: TCP": 50948})
	if held["default/s0: TCP"] != 50948 {
		t.Errorf("a held port changed: %v", held)
	}
	if many := preferredPorts(n, servicesNamed(portCount+10), nil); len(many) != portCount {
		t.Errorf("%d preferred ports, want %d", len(many), portCount)
	}
}
