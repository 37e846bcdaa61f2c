package agent

import (
	"reflect"
	"slices"

	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/nft"
	"weft/internal/proxy"
)

// owners in the union of table inet weft besides the service ports.
const (
	ownerBase = "services"
	ownerPods = "pods"
)

// tablePlan is the content of table inet weft as planned, kept so that a changed service costs that service.
type tablePlan struct {
	merge    *nft.Merge
	node     proxy.Node
	masq     masq.Config
	outer    []uint16
	services []api.ServicePort // sorted as the snapshot's
}

// ownerOf is a service port's name in the union.
func ownerOf(s api.ServicePort) string {
	return "service " + s.Name.String() + " " + string(s.Protocol)
}

// update plans what changed and returns the ops for it. The first one plans everything.
func (t *tablePlan) update(n proxy.Node, m masq.Config, outer []uint16, services []api.ServicePort) []nft.Op {
	if t.merge == nil || !reflect.DeepEqual(t.node, n) {
		return t.rebuild(n, m, outer, services)
	}
	p := planner(m)
	parts := map[string]nft.Table{}
	if !reflect.DeepEqual(t.masq, m) || !slices.Equal(t.outer, outer) {
		parts[ownerPods] = masq.NFT(m, outer...)
	}
	gone, fresh := changedServices(t.services, services)
	for _, s := range gone {
		parts[ownerOf(s)] = nft.New()
	}
	for _, s := range fresh {
		parts[ownerOf(s)] = p.Plan(n, s)
	}
	t.masq, t.outer, t.services = m, outer, services
	if len(parts) == 0 {
		return nil
	}
	return t.merge.Update(parts)
}

// rebuild plans everything anew.
func (t *tablePlan) rebuild(n proxy.Node, m masq.Config, outer []uint16, services []api.ServicePort) []nft.Op {
	if t.merge == nil {
		t.merge = nft.NewMerge(nft.INet, nft.TableName)
	}
	parts := fragments(n, m, outer, services)
	for _, owner := range t.merge.Owners() {
		if _, ok := parts[owner]; !ok {
			parts[owner] = nft.New()
		}
	}
	t.node, t.masq, t.outer, t.services = n, m, outer, services
	return t.merge.Update(parts)
}

// table is the whole content, nil before the first update.
func (t *tablePlan) table() *nft.Table {
	if t.merge == nil {
		return nil
	}
	all := t.merge.Table()
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
		same(a.LoadBalancer, b.LoadBalancer) && same(a.SourceRanges, b.SourceRanges)
}

func sameTraffic(a, b *api.ServicePort) bool {
	return a.ExternalLocal == b.ExternalLocal && a.InternalLocal == b.InternalLocal && a.HealthCheckNodePort == b.HealthCheckNodePort &&
		a.PublishNotReady == b.PublishNotReady && a.MasqueradeDisabled == b.MasqueradeDisabled
}

// same compares slices, at no cost where they share their memory.
func same[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}
