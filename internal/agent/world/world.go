// Package world plans all nodes of a cluster at once, for those who ask where a packet goes: from the objects of the cluster and what the
// agents published. No agent is asked.
//
// Floor 4, programs.
package world

import (
	"errors"
	"fmt"
	"net/netip"

	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/agent/rules"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/explain"
	"weft/internal/netstate"
)

// Plan plans every node of the cluster that runs an agent and joins the plans into what explain walks through. Nothing is asked of
// the agents: their plans follow from the cluster's objects and the facts they published.
func Plan(snap api.Snapshot, leases []api.Lease) (explain.World, error) {
	var w explain.World
	for _, n := range snap.Nodes {
		f, ok, err := facts.Read(n)
		if err != nil {
			return w, err
		}
		if !ok {
			w.Hosts = append(w.Hosts, plainNode(n))
			continue
		}
		switch err := addNode(&w, f, snap, leases); {
		case errors.Is(err, ways.ErrNoLease):
			w.Hosts = append(w.Hosts, plainNode(n)) // its agent has planned nothing either, and the others' paths do not depend on it
		case err != nil:
			return w, fmt.Errorf("plan node %s: %w", n.Name, err)
		}
	}
	return w, nil
}

// plainNode is a node that is not ours: only its addresses are known.
func plainNode(n api.Node) *explain.Host {
	h := &explain.Host{Name: n.Name, Underlay: netstate.New()}
	for _, a := range n.Addresses {
		h.Underlay.Add(netstate.Addr{Dev: "underlay", Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return h
}

func addNode(w *explain.World, f facts.Facts, snap api.Snapshot, leases []api.Lease) error {
	own, ok := leaseOf(f, leases)
	if !ok {
		return ways.ErrNoLease
	}
	used, err := ways.Of(f, own, leases)
	if err != nil {
		return err
	}
	leases = ways.Named(snap.Nodes, leases)
	ways.Place(used, ways.Endpoints(snap.Nodes, leases))
	pods := podsOf(snap, f.Node)
	state, inPod := ways.PlanNode(f, used, own, leases, pods)
	rules := rules.Plan(f, own, snap, guard.Plan(f, used, own, leases))
	h := &explain.Host{Name: f.Node, Underlay: f.UnderlayState(), State: netstate.Union(state, netstate.New(rules.Objects()...))}
	h.Rules = rules.Explainers(h.Local)
	w.Hosts = append(w.Hosts, h)
	for _, p := range pods {
		w.Hosts = append(w.Hosts, &explain.Host{Name: p.Namespace + "/" + p.Name, Pod: true, Netns: p.Netns, State: inPod[p.UID]})
	}
	return nil
}

// leaseOf finds the lease of the node with the facts.
func leaseOf(f facts.Facts, leases []api.Lease) (api.Lease, bool) {
	for _, l := range leases {
		if l.Node == f.Node && l.Node != "" || f.Holds(l.PublicIP) || f.Holds(l.PublicIPv6) {
			return l, true
		}
	}
	return api.Lease{}, false
}

// podsOf lists the pods of a node that have an address of their own. The path of a pod's network namespace is the agent's to
// choose; for a plan any name will do.
func podsOf(snap api.Snapshot, node string) []attach.Pod {
	var out []attach.Pod
	for _, p := range snap.Pods {
		if p.Node != node || p.HostNetwork || len(p.IPs) == 0 || p.Phase == "Succeeded" || p.Phase == "Failed" {
			continue
		}
		out = append(out, attach.Pod{UID: p.UID, Namespace: p.Namespace, Name: p.Name, IPs: p.IPs, Netns: "/pod/" + p.UID})
	}
	return out
}
