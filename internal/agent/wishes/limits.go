// Package wishes says what of services is not done as they want it, and why.
//
// Floor 4, programs.
package wishes

import (
	"log/slog"
	"maps"
	"reflect"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/agent/rules"
	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
)

// limit says what of a service port is not done as it wants on a node with the facts, and why, or "".
func limit(f facts.Facts, s *api.ServicePort) string {
	name := "service " + s.Name.String()
	switch {
	case !rules.ModeOf(f).Services:
		return ""
	case rules.ModeOf(f).Relays() && userspace.Unsupported(*s) != "":
		return userspace.Unsupported(*s) + ": it is rejected"
	case s.Protocol == api.SCTP && f.Services.NoSCTP:
		return name + " is rejected: connection tracking of this kernel does not know SCTP (CONFIG_NF_CT_PROTO_SCTP)"
	case rules.ModeOf(f).Relays() && s.ExternalLocal && proxy.Exposed(*s):
		return name + ": externalTrafficPolicy Local does not keep the client's address in proxy mode " + string(f.ProxyMode) +
			": endpoints see the node's; use mode nftables or iptables"
	}
	return ""
}

// Limits keeps what services want and do not get, at the cost of the services that changed.
type Limits struct {
	mode     facts.ProxyMode
	facts    facts.Services
	list     rules.ServiceList
	byOwner  map[string]string
	noLocal  map[string][2]bool // of service ports with a traffic policy Local and no endpoint here: internal, external
	problems []string           // of the snapshot
}

// Look takes a snapshot in and logs what is new.
func (l *Limits) Look(log *slog.Logger, f facts.Facts, snap api.Snapshot) {
	gone, fresh, ok := l.list.Next(snap.Services, snap.Changes)
	said := l.byOwner
	if !ok || l.byOwner == nil || l.mode != f.ProxyMode || !reflect.DeepEqual(l.facts, f.Services) {
		l.mode, l.facts, l.byOwner, l.noLocal = f.ProxyMode, f.Services, map[string]string{}, map[string][2]bool{}
		gone, fresh = nil, snap.Services
	}
	for i := range gone {
		delete(l.byOwner, rules.OwnerOf(gone[i]))
		delete(l.noLocal, rules.OwnerOf(gone[i]))
	}
	for i := range fresh {
		l.lookLocal(f, &fresh[i])
		text := limit(f, &fresh[i])
		if text == "" && len(l.byOwner) == 0 {
			continue
		}
		owner := rules.OwnerOf(fresh[i])
		if text != "" && said[owner] != text {
			log.Warn("a service is not served as it wants", "what", text)
		}
		if l.byOwner[owner] = text; text == "" {
			delete(l.byOwner, owner)
		}
	}
	problems := snap.Problems
	if !rules.ModeOf(f).Services {
		problems = nil
	}
	for _, text := range problems {
		if !slices.Contains(l.problems, text) {
			log.Warn("a service is not served as it wants", "what", text)
		}
	}
	l.problems = problems
}

// lookLocal notes whether the service port's traffic policies leave it without endpoint here, while it has some elsewhere.
func (l *Limits) lookLocal(f facts.Facts, s *api.ServicePort) {
	if !s.InternalLocal && !s.ExternalLocal && len(l.noLocal) == 0 {
		return
	}
	here, somewhere := false, false
	for _, v6 := range []bool{false, true} {
		here = here || len(proxy.Endpoints(proxy.Node{Name: f.Node}, *s, v6, proxy.Local)) > 0
		somewhere = somewhere || len(s.Usable(v6)) > 0
	}
	none := rules.ModeOf(f).Services && somewhere && !here
	if lacks := [2]bool{none && s.InternalLocal, none && s.ExternalLocal && proxy.Exposed(*s)}; lacks != [2]bool{} {
		l.noLocal[rules.OwnerOf(*s)] = lacks
	} else {
		delete(l.noLocal, rules.OwnerOf(*s))
	}
}

// Texts are all of them, one line each.
func (l *Limits) Texts() []string {
	return append(slices.Clone(l.problems), slices.Sorted(maps.Values(l.byOwner))...)
}

// WithoutLocal counts the service ports that have a traffic policy Local and no endpoint here: internal, external.
func (l *Limits) WithoutLocal() (n [2]int) {
	for _, lacks := range l.noLocal {
		for i, x := range lacks {
			if x {
				n[i]++
			}
		}
	}
	return n
}
