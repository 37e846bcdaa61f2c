package services

import (
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/relay"
)

func TestRelayStatus(t *testing.T) {
	engine := relay.New(relay.Options{MaxFiles: 100})
	defer engine.Close()
	p := Loop{relay: engine}
	if s := p.relayStatus(facts.NFTables); s != nil {
		t.Errorf("mode nftables has a relay: %+v", s)
	}
	s := p.relayStatus(facts.Userspace)
	if s == nil || s.MaxFiles != 100 {
		t.Fatalf("%+v", s)
	}
	if w := FewFiles(s); w != nil {
		t.Errorf("warns of nothing: %v", w)
	}
	s.Files = 90
	if w := FewFiles(s); len(w) != 1 || !strings.Contains(w[0], "90 of the 100 file descriptors") {
		t.Errorf("warnings %v", w)
	}
	var out strings.Builder
	WriteRelayMetrics(&out, s)
	WriteRelayMetrics(&out, nil)
	if n := strings.Count(out.String(), "weft_relay_files 90\n"); n != 1 {
		t.Errorf("metrics:\n%s", out.String())
	}
}
