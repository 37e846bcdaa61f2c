package cli

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/explain"
	"weft/internal/netstate"
	"weft/internal/packet"
)

// TestExplainFromAddress: an address is a pod or a node that has it, else a client outside, whose packet reaches the node with the address it
// asks for, or the one that --at names.
func TestExplainFromAddress(t *testing.T) {
	host := func(name, addr string) *explain.Host {
		return &explain.Host{Name: name, State: netstate.New(
			netstate.Addr{Dev: "eth0", Prefix: netip.MustParsePrefix(addr)},
			netstate.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.17.42.1"), Dev: "eth0"})}
	}
	w := explain.World{Hosts: []*explain.Host{host("kube-node1", "172.17.42.31/16"), host("kube-node2", "172.17.42.32/16")}}
	for _, c := range []struct{ from, at, to, first, want string }{
		{"172.17.42.32", "", "172.17.42.31:80", "route kube-node2", ""},
		{"198.51.100.7", "", "172.17.42.31:80", "arrival kube-node1", ""},
		{"198.51.100.7", "kube-node2", "203.0.113.1:80", "arrival kube-node2", ""},
		{"198.51.100.7", "", "203.0.113.1:80", "", "name the node that the packet reaches with --at"},
		{"198.51.100.7", "kube-node9", "203.0.113.1:80", "", `no host or pod "kube-node9"`},
		{"2001:db8::7", "", "172.17.42.31:80", "", "different families"},
		{"kube-node3", "", "172.17.42.31:80", "", `no node or pod "kube-node3"`},
	} {
		f := packet.Flow{Proto: "tcp", Dst: netip.MustParseAddrPort(c.to)}
		trace, err := explainOptions{at: c.at}.walk(w, c.from, f, nil)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s to %s: %v, want %s", c.from, c.to, err, c.want)
			}
			continue
		}
		if err != nil || len(trace.Steps) == 0 || trace.Steps[0].Point+" "+trace.Steps[0].Host != c.first {
			t.Errorf("%s to %s: %+v, %v, want %s first", c.from, c.to, trace.Steps, err, c.first)
		}
	}
}
