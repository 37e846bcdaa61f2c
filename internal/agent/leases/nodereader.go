package leases

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"weft/internal/api"
	"weft/internal/lease"
)

// nodeReader reads leases from nodes, each once for as long as it stays the same: snapshots come with every change of any node, and reading
// annotations is the bulk of the work.
type nodeReader struct {
	prefix      string                // of the annotations
	known, next map[string]*nodeLease // by name, of the snapshot before and of this one
}

// nodeLease is a node as it was read, and the lease.
type nodeLease struct {
	annotations map[string]string
	cidrs       []netip.Prefix
	addresses   []netip.Addr
	l           api.Lease
	err         error
}

// lease is the node's lease.
func (r *nodeReader) lease(n api.Node) (api.Lease, error) {
	x := r.known[n.Name]
	if x == nil || !x.of(n) {
		x = &nodeLease{annotations: n.Annotations, cidrs: n.PodCIDRs, addresses: n.Addresses}
		x.l, x.err = lease.FromNode(n, r.prefix)
	}
	if r.next == nil {
		r.next = make(map[string]*nodeLease, len(r.known))
	}
	r.next[n.Name] = x
	return x.l, x.err
}

// of reports whether it is of the node as it is now. Snapshots share the annotations of nodes that did not change.
func (x *nodeLease) of(n api.Node) bool {
	return slices.Equal(x.cidrs, n.PodCIDRs) && slices.Equal(x.addresses, n.Addresses) &&
		(reflect.ValueOf(x.annotations).Pointer() == reflect.ValueOf(n.Annotations).Pointer() || maps.Equal(x.annotations, n.Annotations))
}

// end forgets nodes that were not in the snapshot.
func (r *nodeReader) end() { r.known, r.next = r.next, nil }
