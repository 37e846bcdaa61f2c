package claim

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
)

func routes(dst ...netip.Prefix) []HostRoute {
	out := make([]HostRoute, len(dst))
	for i, p := range dst {
		out[i] = HostRoute{Dst: p, Dev: "eth0"}
	}
	return out
}

// TestHostRoutes: which routes of the host stand against a peer's lease, and that it is taken up when they go.
func TestHostRoutes(t *testing.T) {
	const value = `{"PublicIP":"172.17.42.32","PublicIPv6":null,"BackendType":"host-gw"}`
	view := func() *View {
		var v View
		v.Reset(Snapshot{Revision: 3, Cluster: 1, Entries: []Entry{
			{Key: ConfigKey, Value: []byte(walkthrough), Modified: 1},
			{Key: Subnets + "172.16.78.0-24", Value: []byte(value), Created: 2, Modified: 2, Lease: 1},
			{Key: Subnets + "172.16.99.0-24", Value: []byte(strings.ReplaceAll(value, ".32", ".33")), Created: 3, Modified: 3, Lease: 2},
		}}, time.Unix(0, 0))
		return &v
	}
	for _, tt := range []struct {
		route   HostRoute
		refused bool
	}{
		{HostRoute{Dst: pfx("172.17.42.0/24"), Dev: "eth0"}, false},
		{HostRoute{Dst: pfx("0.0.0.0/0"), Via: addr("172.17.42.1"), Dev: "eth0"}, false},
		{HostRoute{Dst: pfx("172.0.0.0/8"), Dev: "tun0"}, false},
		{HostRoute{Dst: pfx("172.16.64.0/20"), Dev: "tun0"}, true},
		{HostRoute{Dst: pfx("172.16.78.0/24"), Dev: "tun0"}, true},
		{HostRoute{Dst: pfx("172.16.78.0/24"), Via: addr("172.17.42.1"), Dev: "eth0"}, true},
		{HostRoute{Dst: pfx("172.16.78.0/24"), Via: addr("172.17.42.32"), Dev: "eth0"}, false}, // flannel's host-gw
		{HostRoute{Dst: pfx("172.16.78.0/24"), Via: addr("172.17.42.33"), Dev: "eth0"}, false}, // and before the subnet changed hands
		{HostRoute{Dst: pfx("172.16.78.128/25"), Via: addr("172.17.42.32"), Dev: "eth0"}, true},
		{HostRoute{Dst: pfx("172.16.78.7/32"), Dev: "eth1"}, true},
	} {
		v := view()
		peers, refused := v.Peers(api.Lease{}, []HostRoute{tt.route})
		if (len(refused) == 1) != tt.refused || len(peers)+len(refused) != 2 {
			t.Errorf("%s: %d peers, refused %+v", tt.route, len(peers), refused)
		}
		if tt.refused && (refused[0].Kind != InTheWay || !strings.Contains(refused[0].Reason, tt.route.String())) {
			t.Errorf("%s: %+v", tt.route, refused[0])
		}
		if peers, _ := v.Peers(api.Lease{}, nil); len(peers) != 2 {
			t.Errorf("%s gone: %d peers", tt.route, len(peers))
		}
	}
}
