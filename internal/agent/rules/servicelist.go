package rules

import (
	"slices"

	"weft/internal/api"
)

// ServiceList is the services of a snapshot as one who plans from them keeps it.
type ServiceList struct {
	services []api.ServicePort // sorted as the snapshot's
	version  uint64            // of them, where the snapshots have versions
}

// Next takes the services of a snapshot and returns those that are no longer and those that are new or different. A reader that missed a
// version does not know: then ok is false.
func (l *ServiceList) Next(services []api.ServicePort, c *api.ServiceChanges) (gone, fresh []api.ServicePort, ok bool) {
	before := *l
	l.services, l.version = services, 0
	if c == nil {
		gone, fresh = changedServices(before.services, services)
		return gone, fresh, true
	}
	l.version = c.To
	switch before.version {
	case c.To:
		return nil, nil, true
	case c.From:
		return c.Gone, c.Fresh, true
	}
	return nil, nil, false
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
