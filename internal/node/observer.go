package node

import (
	"context"
	"fmt"
	"sync"

	"weft/internal/runtime"
)

// observer remembers what the runtime listed last, so that a hundred pods that look at the same moment cost one listing.
type observer struct {
	sandboxes Sandboxes

	genMu sync.Mutex
	gen   uint64 // raised whenever something may have changed

	mu    sync.Mutex
	have  uint64 // gen that boxes is at least as new as
	boxes map[string]runtime.SandboxStatus
}

func newObserver(s Sandboxes) *observer { return &observer{sandboxes: s, gen: 1} }

// invalidate makes the next get list again.
func (o *observer) invalidate() {
	o.genMu.Lock()
	o.gen++
	o.genMu.Unlock()
}

// all returns the sandboxes by UID; do not change the map.
func (o *observer) all(ctx context.Context) (map[string]runtime.SandboxStatus, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.genMu.Lock()
	gen := o.gen
	o.genMu.Unlock()
	if o.have == gen {
		return o.boxes, nil
	}
	list, err := o.sandboxes.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	boxes := make(map[string]runtime.SandboxStatus, len(list))
	for _, b := range list {
		boxes[b.UID] = b
	}
	o.boxes, o.have = boxes, gen
	return boxes, nil
}

// get returns one sandbox, nil when there is none.
func (o *observer) get(ctx context.Context, uid string) (*runtime.SandboxStatus, error) {
	boxes, err := o.all(ctx)
	if err != nil {
		return nil, err
	}
	b, ok := boxes[uid]
	if !ok {
		return nil, nil
	}
	return &b, nil
}
