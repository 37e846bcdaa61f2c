package wishes

import (
	"fmt"
	"log/slog"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/api"
)

// Balancing says which wishes about the choice of endpoints are not met: annotations that are no good, and ways that the proxy mode in
// force does not have.
type Balancing struct {
	services []api.ServicePort // as looked at last
	version  uint64            // of them, where the snapshots have versions
	mode     facts.ProxyMode
	list     []string
}

// Look finds out when the services or the mode changed, and logs what was not so before.
func (b *Balancing) Look(log *slog.Logger, f facts.Facts, snap api.Snapshot) {
	same := f.ProxyMode == b.mode && b.same(snap)
	if b.services, b.mode, b.version = snap.Services, f.ProxyMode, 0; snap.Changes != nil {
		b.version = snap.Changes.To
	}
	if same {
		return
	}
	list := unmet(f, snap.Services)
	for _, text := range list {
		if !slices.Contains(b.list, text) {
			log.Warn(text)
		}
	}
	b.list = list
}

// Texts are the wishes that are not met, one line each.
func (b *Balancing) Texts() []string { return slices.Clone(b.list) }

// same reports whether a snapshot's services can have no other wishes than those looked at last.
func (b *Balancing) same(snap api.Snapshot) bool {
	s, c := snap.Services, snap.Changes
	if c == nil {
		return len(s) == len(b.services) && (len(s) == 0 || &s[0] == &b.services[0])
	}
	wishes := func(s api.ServicePort) bool { return s.Refused != "" || s.Balance != api.RoundRobin }
	return c.To == b.version || c.From != 0 && c.From == b.version && len(b.list) == 0 && !slices.ContainsFunc(c.Fresh, wishes)
}

// unmet are the wishes of the services that are not met, each service once.
func unmet(f facts.Facts, services []api.ServicePort) []string {
	var out []string
	for i := range services {
		s := &services[i]
		if s.Refused == "" && s.Balance == api.RoundRobin {
			continue
		}
		if i > 0 && s.Name.Name == services[i-1].Name.Name && s.Name.Namespace == services[i-1].Name.Namespace {
			continue // another port of it
		}
		name := "service " + s.Name.Namespace + "/" + s.Name.Name + ": "
		if s.Refused != "" {
			out = append(out, name+s.Refused)
		}
		if why := cannot(f, s.Balance); why != "" {
			out = append(out, name+why)
		}
	}
	return out
}

// cannot says why the mode, or this kernel, does not choose endpoints so, or "".
func cannot(f facts.Facts, b api.Balance) string {
	switch mode := f.ProxyMode; {
	case b == api.Maglev && mode == facts.NFTables && f.Services.NoHash:
		return "annotation weft.dev/balance=maglev: the kernel's nf_tables can't hash (module nft_hash, CONFIG_NFT_HASH); " +
			"endpoints are drawn at random, by their weights. Load the module and restart the agent, or use proxy mode userspace"
	case b == api.LeastConnections && mode != facts.Userspace, b == api.Maglev && mode == facts.IPTables:
		return fmt.Sprintf("annotation weft.dev/balance=%s: proxy mode %s can't; it draws endpoints at random, by their weights", b, mode)
	}
	return ""
}
