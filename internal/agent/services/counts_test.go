package services

import (
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
)

// TestServicesWithoutLocalEndpoints counts by policy, and follows changes.
func TestServicesWithoutLocalEndpoints(t *testing.T) {
	p := newProxyLoop(facts.NFTables, nil, nil)
	away := agenttest.Nginx("172.16.78.9:80")
	away.InternalLocal, away.ExternalLocal, away.NodePort = true, true, 30080
	f := agenttest.Walkthrough(facts.NFTables)
	p.limits.Look(p.log, f, api.Snapshot{Services: []api.ServicePort{away}})
	if n := p.local(); n != [2]int{1, 1} {
		t.Errorf("all endpoints elsewhere: %v", n)
	}
	here := away
	here.Endpoints = []api.Endpoint{away.Endpoints[0]}
	here.Endpoints[0].Node = f.Node
	p.limits.Look(p.log, f, api.Snapshot{Services: []api.ServicePort{here}})
	if n := p.local(); n != [2]int{} {
		t.Errorf("one here: %v", n)
	}
}
