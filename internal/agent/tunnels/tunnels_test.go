package tunnels

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/kernel/tun/datagram"
	"weft/internal/kernel/tun/wg"
)

func TestTunnelMetrics(t *testing.T) {
	var b strings.Builder
	WriteMetrics(&b, nil)
	if b.Len() > 0 {
		t.Errorf("without engines:\n%s", b.String())
	}
	WriteMetrics(&b, &Stats{
		UDP: &datagram.Stats{SentPackets: 7, Refused: []datagram.Refused{
			{From: netip.MustParseAddr("172.17.42.9"), Reason: datagram.ReasonNoPeer, Packets: 3}, {Reason: datagram.ReasonSource, Packets: 1},
		}},
		WireGuard: &wg.Stats{Refused: []wg.Refused{{From: "172.17.42.32", Reason: wg.ReasonSource, Packets: 2}}},
	})
	for _, want := range []string{
		"weft_udp_sent_packets_total 7\n",
		`weft_tunnel_refused_packets_total{backend="udp",from="172.17.42.9",reason="not a live peer"} 3` + "\n",
		`weft_tunnel_refused_packets_total{backend="udp",from="",reason="inner source outside the peer's subnet"} 1` + "\n",
		`weft_tunnel_refused_packets_total{backend="wireguard",from="172.17.42.32",reason="inner source outside the peer's subnet"} 2` + "\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("metrics lack %q:\n%s", want, b.String())
		}
	}
}

// TestSecretsStayHome checks that what a node publishes of itself names neither of WireGuard's secrets.
func TestSecretsStayHome(t *testing.T) {
	s := facts.Setting{PSK: wg.Key{1, 2, 3}.String()}
	text, err := s.JSON()
	if err != nil || strings.Contains(text, s.PSK) {
		t.Errorf("facts %s, %v: want them without the preshared key", text, err)
	}
}
