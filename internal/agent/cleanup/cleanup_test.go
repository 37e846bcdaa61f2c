package cleanup

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/netstate"
)

func TestUnmarked(t *testing.T) {
	p := netip.MustParsePrefix("10.1.2.0/24")
	have := netstate.New(
		netstate.Link{Name: "flannel.1", Type: netstate.TypeVXLAN, MTU: 1450, MAC: "02:00:00:00:00:01", Alias: "weft:vtep", Up: true},
		netstate.Addr{Dev: "flannel.1", Prefix: netip.MustParsePrefix("10.1.1.0/32")},
		netstate.Route{Type: "unreachable", Dst: netip.MustParsePrefix("10.1.1.0/24"), Metric: 65535},
		netstate.Route{Dst: p, Via: p.Addr(), Dev: "flannel.1", Onlink: true},
		netstate.Link{Name: "flannel0", Type: netstate.TypeTUN, MTU: 1472, Alias: "weft:tunnel", Up: true},
		netstate.Route{Dst: netip.MustParsePrefix("10.1.0.0/16"), Dev: "flannel0"},
	)
	var lines []string
	for _, op := range netstate.Diff(unmarked(have), have) {
		lines = append(lines, op.String())
	}
	want := `ip link set dev flannel.1 alias ""
ip route replace 10.1.2.0/24 via 10.1.2.0 dev flannel.1 proto 3 onlink
ip route del unreachable 10.1.1.0/24 proto 119 metric 65535
ip route del 10.1.0.0/16 dev flannel0 proto 119
ip link del dev flannel0`
	if d := cmp.Diff(want, strings.Join(lines, "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
