package wishes

import (
	"log/slog"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/api"
)

func TestBalancing(t *testing.T) {
	web := func(port string, b api.Balance, refused string) api.ServicePort {
		return api.ServicePort{Name: api.ServicePortName{Namespace: "default", Name: "web", Port: port}, Balance: b, Refused: refused}
	}
	for _, c := range []struct {
		mode     facts.ProxyMode
		services []api.ServicePort
		want     []string
		noHash   bool
	}{
		{facts.NFTables, []api.ServicePort{web("a", api.Maglev, ""), web("b", api.Maglev, "")}, nil, false},
		{facts.Userspace, []api.ServicePort{web("a", api.LeastConnections, ""), web("b", api.Maglev, "")}, nil, false},
		{facts.IPTables, []api.ServicePort{web("a", api.Maglev, ""), web("b", api.Maglev, "")}, []string{"default/web: annotation weft.dev/balance=maglev: proxy mode iptables can't"}, false},
		{facts.NFTables, []api.ServicePort{web("", api.LeastConnections, "")}, []string{"weft.dev/balance=least-connections: proxy mode nftables can't"}, false},
		{facts.NFTables, []api.ServicePort{web("", "", "annotation weft.dev/balance=\"x\": no")}, []string{`service default/web: annotation weft.dev/balance="x": no`}, false},
		{facts.NFTables, []api.ServicePort{web("", api.Maglev, "")}, []string{"default/web: annotation weft.dev/balance=maglev: the kernel's nf_tables can't hash (module nft_hash"}, true},
		{facts.Userspace, []api.ServicePort{web("", api.Maglev, "")}, nil, true},
	} {
		got := unmet(facts.Facts{ProxyMode: c.mode, Services: facts.Services{NoHash: c.noHash}}, c.services)
		if len(got) != len(c.want) {
			t.Errorf("%s %v: %q, want %d", c.mode, c.services, got, len(c.want))
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%q, want %q in it", got[i], c.want[i])
			}
		}
	}
	var b Balancing
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	bad := []api.ServicePort{web("", "", "no good")}
	b.Look(log, facts.Facts{ProxyMode: facts.NFTables}, api.Snapshot{Services: bad})
	b.Look(log, facts.Facts{ProxyMode: facts.NFTables}, api.Snapshot{Services: bad})
	b.Look(log, facts.Facts{ProxyMode: facts.NFTables}, api.Snapshot{Services: []api.ServicePort{bad[0]}})
	if n := strings.Count(out.String(), "no good"); n != 1 {
		t.Errorf("said %d times:\n%s", n, out.String())
	}
}
