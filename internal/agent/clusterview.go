package agent

import (
	"context"
	"slices"

	"weft/internal/api"
)

// cluster is the Kubernetes side of the plan without services; known is false until everything was listed once. Without an API there
// are no services, and that is known.
func (a *agent) cluster() (snap api.Snapshot, known bool) {
	return a.know(func() api.Snapshot { return a.watch.Objects() })
}

// everything is cluster with the services.
func (a *agent) everything() (snap api.Snapshot, known bool) {
	return a.know(func() api.Snapshot { return a.watch.Snapshot() })
}

// feed is everything for the loop of the services, with what changed since its step before. Its list of services is valid until the next
// call.
func (a *agent) feed() func() (api.Snapshot, bool) {
	if a.watch == nil {
		return a.cluster
	}
	f := a.watch.Feed()
	return func() (api.Snapshot, bool) { return a.know(f.Snapshot) }
}

func (a *agent) know(look func() api.Snapshot) (snap api.Snapshot, known bool) {
	if a.watch == nil {
		return api.Snapshot{}, true
	}
	select {
	case <-a.watch.Synced():
		return look(), true
	default:
		return api.Snapshot{}, false
	}
}

// healthChecked reports whether any of the services wants its health to be asked for.
func healthChecked(services []api.ServicePort) bool {
	return slices.ContainsFunc(services, func(s api.ServicePort) bool { return s.HealthCheckNodePort != 0 })
}

// serveHealth brings the healthCheckNodePorts up to date. All services are looked at only while one of them has such a port.
func (p *proxyLoop) serveHealth(ctx context.Context, node string, snap api.Snapshot, healthy bool) error {
	c := snap.Changes
	known := c != nil && c.From != 0 && c.From == p.healthAt && len(p.healthWanted) == 0
	if c != nil {
		p.healthAt = c.To
	}
	if known && !healthChecked(c.Fresh) {
		return nil
	}
	p.healthWanted = healthOf(node, snap.Services, healthy)
	return p.health.apply(ctx, p.healthWanted)
}
