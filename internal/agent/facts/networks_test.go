package facts

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestPodNetworksLeaveTheUnderlayOut(t *testing.T) {
	for _, c := range []struct{ network, connected, want string }{
		{"172.16.0.0/12", "172.17.0.0/16", "[172.16.0.0/16 172.18.0.0/15 172.20.0.0/14 172.24.0.0/13]"},
		{"10.0.0.0/8", "172.17.0.0/16", "[10.0.0.0/8]"},
		{"10.0.0.0/8", "10.128.0.0/9", "[10.0.0.0/9]"},
		{"10.0.0.0/16", "10.0.0.0/8", "[10.0.0.0/16]"},
		{"fd00::/16", "fd00:1::/32", "[fd00::/32 fd00:2::/31 fd00:4::/30 fd00:8::/29 fd00:10::/28 fd00:20::/27 fd00:40::/26 fd00:80::/25 " +
			"fd00:100::/24 fd00:200::/23 fd00:400::/22 fd00:800::/21 fd00:1000::/20 fd00:2000::/19 fd00:4000::/18 fd00:8000::/17]"},
	} {
		f := Facts{Network: netip.MustParsePrefix(c.network), Connected: []netip.Prefix{netip.MustParsePrefix(c.connected)}}
		got := f.PodNetworks()
		if text := fmt.Sprint(got); text != c.want {
			t.Errorf("%s without %s: %s, want %s", c.network, c.connected, text, c.want)
		}
	}
}
