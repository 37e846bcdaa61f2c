// Package rtnl reads, applies and watches links, addresses, neighbours, FDB entries and routes through rtnetlink(7).
//
// It knows what is ours by mark: routes of protocol 119, links whose alias begins with "weft:" and what lives on them. What does
// not bear the mark is read only where a wanted object would collide with it, and deleted never, except what another overlay left on
// a link that we take over.
//
// Floor 3, edges.
package rtnl

import (
	"context"
	"fmt"
	"sync"
	"time"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// callLimit bounds the time of one call.
const callLimit = 30 * time.Second

// Handle works in the network namespace it was opened in. Its methods may be called concurrently.
type Handle struct {
	mu   sync.Mutex
	conn *wire.Conn

	// What the last Read saw and wanted, kept true by Apply: Watch tells by it whether an event is news.
	known    netstate.State
	wanted   netstate.State
	indexes  map[int]string  // links by index
	ours     map[string]bool // links all of whose objects are ours
	interest map[string]bool // links whose changes matter: ours, wanted ones, and those that ours lie on
	injuries injuries
	plain    bool // the kernel has no next hop objects

	untrusted bool // see OpenUntrusted
}

// Open opens a handle in the calling thread's network namespace; run it in another one with netns.Do.
func Open() (*Handle, error) {
	conn, err := wire.Dial()
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &Handle{conn: conn, indexes: map[int]string{}, ours: map[string]bool{}, interest: map[string]bool{}}, nil
}

// OpenUntrusted is Open for the namespace of processes that are not trusted, as a pod's. Watch then keeps few events and reads no more than
// some thousand a second: what is too much counts as news, which the caller answers as slowly as it likes.
func OpenUntrusted() (*Handle, error) {
	h, err := Open()
	if err == nil {
		h.untrusted = true
	}
	return h, err
}

// Close closes the handle.
func (h *Handle) Close() error {
	if err := h.conn.Close(); err != nil {
		return fmt.Errorf("close rtnetlink: %w", err)
	}
	return nil
}

// lock takes the connection for one call.
func (h *Handle) lock(ctx context.Context) (release func(), err error) {
	h.mu.Lock()
	unbound, err := h.conn.Bound(ctx, callLimit)
	if err != nil {
		h.mu.Unlock()
		return nil, err
	}
	return func() {
		unbound()
		h.mu.Unlock()
	}, nil
}

// kinds are those of the objects that Read, Apply and Watch deal with; Read ignores others in the wanted State, Apply refuses them.
var kinds = [...]bool{
	netstate.KindLink: true, netstate.KindAddr: true, netstate.KindNeigh: true, netstate.KindFDB: true, netstate.KindRoute: true,
}

// Applies reports whether the package deals with objects of the kind.
func Applies(k netstate.Kind) bool { return int(k) < len(kinds) && kinds[k] }
