package agent

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
)

// startRenewed returns two channels that receive when the node's object was made anew.
func (a *agent) startRenewed(ctx context.Context, g *errgroup.Group) []<-chan struct{} {
	renewed := make(chan struct{}, 1)
	if a.clusterChanged != nil {
		g.Go(func() error { return a.watchRenewed(ctx, a.clusterChanged[4], renewed) })
	}
	return split(ctx, renewed, 2)
}

// watchRenewed pokes renewed when the node's object lacks what this agent wrote: it was deleted and made anew, and others would not know
// the node's facts and, under backend l2, its pods until the next time that they are written anyway.
func (a *agent) watchRenewed(ctx context.Context, cluster <-chan struct{}, renewed chan struct{}) error {
	lacked := true // before the first writing
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-cluster:
			if !ok {
				return nil
			}
		}
		if snap, known := a.cluster(); known && renewedNode(snap, a.cfg.NodeName, &lacked) {
			loop.Poke(renewed)
		}
	}
}

// renewedNode reports whether the node lacks its facts and did not lack them when it was last looked at.
func renewedNode(snap api.Snapshot, node string, lacked *bool) bool {
	lacks, there := lacksFacts(snap, node)
	if !there {
		return false
	}
	was := *lacked
	*lacked = lacks
	return lacks && !was
}

// lacksFacts reports whether the node is there and without facts.
func lacksFacts(snap api.Snapshot, node string) (lacks, there bool) {
	i := slices.IndexFunc(snap.Nodes, func(n api.Node) bool { return n.Name == node })
	if i < 0 {
		return false, false
	}
	_, has := snap.Nodes[i].Annotations[facts.Annotation]
	return !has, true
}
