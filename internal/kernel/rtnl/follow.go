package rtnl

import "weft/internal/netstate"

// Follow takes over that what is wanted changed by the ops, which were applied, as if the last Read had been for it.
func (h *Handle) Follow(ops []netstate.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range ops {
		if op.Verb == netstate.Del {
			h.wanted.Remove(netstate.IDOf(op.Object))
			continue
		}
		h.wanted.Add(op.Object)
		if dev := op.Object.On(); dev != "" {
			h.interest[dev] = true
		}
	}
}

// Wants reports whether the last Read, or an op that was followed since, wanted an object in the place.
func (h *Handle) Wants(id netstate.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.wanted.Get(id)
	return ok
}
