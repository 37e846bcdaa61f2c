package agent

import (
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
