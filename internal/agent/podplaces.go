package agent

import (
	"context"
	"fmt"
	"slices"

	"weft/internal/agent/loop"
	"weft/internal/agent/ways"
	"weft/internal/lease"
	"weft/internal/overlay/l2"
)

// publishPods says where the node's pods are, when others need to know.
func (a *agent) publishPods(ctx context.Context, published *string) error {
	if a.kube == nil || a.settings.Facts().Backend != lease.L2 {
		return nil
	}
	text, err := ways.PodPlaces(a.pods.List())
	if err != nil || text == *published {
		return err
	}
	if err := a.kube.AnnotateNode(ctx, a.cfg.NodeName, map[string]*string{ways.PodsAnnotation: &text}); err != nil {
		return fmt.Errorf("publish the node's pods: %w", err)
	}
	*published = text
	return nil
}

// watchPlaces pokes moved when pods are elsewhere than before, under backend l2: the other backends need not know.
func (a *agent) watchPlaces(ctx context.Context, changed <-chan struct{}, moved chan struct{}) error {
	var before []l2.Endpoint
	first := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		snap, known := a.cluster()
		if !known || a.settings.Facts().Backend != lease.L2 {
			continue
		}
		now := ways.Endpoints(snap.Nodes, ways.Named(snap.Nodes, a.leases.Leases()))
		if first || !slices.Equal(before, now) {
			before, first = now, false
			loop.Poke(moved)
		}
	}
}
