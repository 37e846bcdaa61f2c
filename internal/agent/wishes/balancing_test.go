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
	}{
		{facts.NFTables, []api.ServicePort{web("a", api.Maglev, ""), web("b", api.Maglev, "")}, nil},
		{facts.Userspace, []api.ServicePort{web("a", api.LeastConnections, ""), web("b", api.Maglev, "")}, nil},
		{facts.IPTables, []api.ServicePort{web("a", api.Maglev, ""), web("b", api.Maglev, "")}, []string{"default/web: annotation weft.dev/balance=maglev: proxy mode iptables can't"}},
		{facts.NFTables, []api.ServicePort{web("", api.LeastConnections, "")}, []string{"weft.dev/balance=least-connections: proxy mode nftables can't"}},
		{facts.NFTables, []api.ServicePort{web("", "", "annotation weft.dev/balance=\"x\": no")}, []string{`service default/web: annotation weft.dev/balance="x": no`}},
	} {
		got := unmet(c.mode, c.services)
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
	b.Look(log, facts.NFTables, api.Snapshot{Services: bad})
	b.Look(log, facts.NFTables, api.Snapshot{Services: bad})
	b.Look(log, facts.NFTables, api.Snapshot{Services: []api.ServicePort{bad[0]}})
	if n := strings.Count(out.String(), "no good"); n != 1 {
		t.Errorf("said %d times:\n%s", n, out.String())
	}
}
