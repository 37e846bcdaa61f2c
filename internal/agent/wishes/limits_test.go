package wishes

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
)

func TestLimits(t *testing.T) {
	sctp, local := agenttest.Nginx("172.16.78.9:80"), agenttest.Nginx("172.16.78.9:80")
	sctp.Protocol, sctp.Name.Name = api.SCTP, "sctp"
	local.ExternalLocal, local.NodePort = true, 30080
	snap := api.Snapshot{Services: []api.ServicePort{sctp, local}, Problems: []string{"two want one address"}}
	for _, c := range []struct {
		mode   facts.ProxyMode
		noSCTP bool
		want   []string // in this order
	}{
		{facts.NFTables, false, []string{"two want"}},
		{facts.IPTables, true, []string{"two want", "default/sctp: is rejected: connection tracking"}},
		{facts.Userspace, false, []string{"two want", "can't serve default/sctp:", "my-nginx-service:: externalTrafficPolicy Local"}},
	} {
		f := agenttest.Walkthrough(c.mode)
		f.Services.NoSCTP = c.noSCTP
		var l Limits
		l.Look(slog.New(slog.DiscardHandler), f, snap)
		got := l.Texts()
		if !slices.EqualFunc(got, c.want, strings.Contains) {
			t.Errorf("mode %s: %q, want %q", c.mode, got, c.want)
		}
	}
	var l Limits
	log := slog.New(slog.DiscardHandler)
	l.Look(log, agenttest.Walkthrough(facts.Userspace), snap)
	l.Look(log, agenttest.Walkthrough(facts.Userspace), api.Snapshot{Services: snap.Services[1:]})
	if got := l.Texts(); len(got) != 1 || !strings.Contains(got[0], "externalTrafficPolicy") {
		t.Errorf("after a service went: %q", got)
	}
	l.Look(log, agenttest.Walkthrough(facts.NFTables), api.Snapshot{Services: snap.Services[1:]})
	if got := l.Texts(); len(got) != 0 {
		t.Errorf("in another mode: %q", got)
	}
}
