package agent

import (
	"reflect"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
	"weft/internal/proxy"
)

// owners in the union of table inet weft besides the service ports.
const (
	ownerBase  = "services"
	ownerPods  = "pods"
	ownerGuard = "overlay"
)

// content is what table inet weft is planned from.
type content struct {
	guard guard.Guard
	// The services and the masquerading are in it in some modes only.
	inTable  bool // the masquerading is, and, if served, the services are
	served   bool
	node     proxy.Node
	masq     masq.Config
	facts    facts.Services
	services []api.ServicePort // sorted as the snapshot's
	changes  *api.ServiceChanges
}

// tablePlan is the content of table inet weft as planned, kept so that a changed service costs that service.
type tablePlan struct {
	merge   *nft.Merge
	members memberPlan
	rules   nft.Table // of the guard
	content
	list serviceList
	last changes
}

// changes are those of the last update.
type changes struct {
	all         bool // everything was planned anew
	gone, fresh []api.ServicePort
}

// ownerOf is a service port's name in the union.
func ownerOf(s api.ServicePort) string {
	return "service " + s.Name.String() + " " + string(s.Protocol)
}

// update plans what changed and returns the ops for it. The first one plans everything.
func (t *tablePlan) update(c content) []nft.Op {
	gone, fresh, ok := t.list.next(c.services, c.changes)
	c.changes = nil
	t.last = changes{gone: gone, fresh: fresh}
	if !ok || t.differs(c) {
		return t.rebuild(c)
	}
	parts := map[string]nft.Table{}
	if !reflect.DeepEqual(t.guard.Config, c.guard.Config) {
		parts[ownerGuard] = edge.Rules(c.guard.Config)
	}
	if c.inTable {
		t.changedRules(parts, c, gone, fresh)
	}
	return t.put(parts, c)
}

// put puts the parts into the union, and the members beside them.
func (t *tablePlan) put(parts map[string]nft.Table, c content) []nft.Op {
	if t.rules.Family == "" || !reflect.DeepEqual(t.guard.Config, c.guard.Config) {
		t.rules = edge.Rules(c.guard.Config)
	}
	t.content = c
	var ops []nft.Op
	if len(parts) > 0 {
		ops = t.merge.Update(parts)
	}
	anew := len(ops) > 0 && ops[0].Kind == nft.KindTable // made, or made again
	return append(ops, t.members.update(t.rules, c.guard.Members, anew)...)
}

// differs reports whether more than services and the guard's members differs.
func (t *tablePlan) differs(c content) bool {
	if t.merge == nil || t.inTable != c.inTable || t.served != c.served {
		return true
	}
	return c.inTable && (t.planner() != c.planner() || !reflect.DeepEqual(t.node, c.node))
}

// changedRules adds what differs in the services and in the masquerading.
func (t *tablePlan) changedRules(parts map[string]nft.Table, c content, gone, fresh []api.ServicePort) {
	plans := c.planner().For(c.node)
	if !reflect.DeepEqual(t.masq, c.masq) {
		parts[ownerPods] = masq.NFT(c.masq)
	}
	for _, s := range gone {
		parts[ownerOf(s)] = nft.New()
	}
	for _, s := range fresh {
		parts[ownerOf(s)] = plans.Plan(s)
	}
}

// rebuild plans everything anew.
func (t *tablePlan) rebuild(c content) []nft.Op {
	if t.merge == nil {
		t.merge = nft.NewMerge(nft.INet, nft.TableName)
	}
	t.last.all = true
	parts := fragments(c)
	for _, owner := range t.merge.Owners() {
		if _, ok := parts[owner]; !ok {
			parts[owner] = nft.New()
		}
	}
	return t.put(parts, c)
}

// table is the whole content, nil when there shall be no table.
func (t *tablePlan) table() *nft.Table {
	if t.merge == nil || t.merge.Empty() {
		return nil
	}
	all := t.merge.Table()
	t.members.fill(&all)
	return &all
}

// changedServices returns the service ports that are no longer, and those that are new or changed. Snapshots share what did not change, so
// looking at all of them costs little.
func changedServices(before, after []api.ServicePort) (gone, fresh []api.ServicePort) {
	if len(before) != len(after) {
		return differing(before, after)
	}
	for i := range after { // nearly always the same services in the same places
		if before[i].Name != after[i].Name || before[i].Protocol != after[i].Protocol {
			return differing(before, after)
		}
		if !sameService(&before[i], &after[i]) {
			fresh = append(fresh, after[i])
		}
	}
	return nil, fresh
}

// differing compares by name.
func differing(before, after []api.ServicePort) (gone, fresh []api.ServicePort) {
	type key struct {
		name     api.ServicePortName
		protocol api.Protocol
	}
	old := make(map[key]*api.ServicePort, len(before))
	for i := range before {
		old[key{before[i].Name, before[i].Protocol}] = &before[i]
	}
	for i := range after {
		k := key{after[i].Name, after[i].Protocol}
		was, ok := old[k]
		delete(old, k)
		if !ok || !sameService(was, &after[i]) {
			fresh = append(fresh, after[i])
		}
	}
	for _, s := range old {
		gone = append(gone, *s)
	}
	return gone, fresh
}

// sameService compares every field; a test makes sure that none is forgotten.
func sameService(a, b *api.ServicePort) bool {
	return a.Name == b.Name && a.Protocol == b.Protocol && a.Port == b.Port && a.NodePort == b.NodePort &&
		a.AffinitySeconds == b.AffinitySeconds && sameTraffic(a, b) &&
		same(a.Endpoints, b.Endpoints) && same(a.ClusterIPs, b.ClusterIPs) && same(a.External, b.External) &&
		same(a.LoadBalancer, b.LoadBalancer) && same(a.SourceRanges, b.SourceRanges) &&
		a.Balance == b.Balance && a.Weights == b.Weights && a.Refused == b.Refused
}

func sameTraffic(a, b *api.ServicePort) bool {
	return a.ExternalLocal == b.ExternalLocal && a.InternalLocal == b.InternalLocal && a.HealthCheckNodePort == b.HealthCheckNodePort &&
		a.PublishNotReady == b.PublishNotReady && a.MasqueradeDisabled == b.MasqueradeDisabled && a.BalancerProxies == b.BalancerProxies
}

// same compares slices, at no cost where they share their memory.
func same[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}
