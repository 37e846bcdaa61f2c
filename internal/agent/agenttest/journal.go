package agenttest

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/lease/claim"
	"weft/internal/store"
)

// Journal is a store that can tell what changed.
type Journal struct {
	Self   api.Lease
	Others []api.Lease
	Log    store.Journal
	Lists  int
}

// Own is Self.
func (j *Journal) Own() (api.Lease, bool) { return j.Self, true }

// Changed never receives.
func (j *Journal) Changed() <-chan struct{} { return nil }

// Leases are Others and Self; it is counted.
func (j *Journal) Leases() []api.Lease {
	j.Lists++
	return append(slices.Clone(j.Others), j.Self)
}

// Delta is what Log says.
func (j *Journal) Delta(since uint64) (uint64, claim.Delta, bool) {
	return j.Log.Since(since)
}

// Change takes leases away and adds others.
func (j *Journal) Change(gone, fresh []api.Lease) {
	j.Others = slices.DeleteFunc(j.Others, func(l api.Lease) bool { return slices.Contains(gone, l) })
	j.Others = append(j.Others, fresh...)
	j.Log.Add(claim.Delta{Gone: gone, Fresh: fresh})
}

// Peer is the lease of another node of the walkthrough, by the addresses it has outside and its pods have.
func Peer(outer, subnet string) api.Lease {
	return api.Lease{
		Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(outer), BackendType: "vxlan", VNI: 1, VTEPMAC: "02:00:00:00:00:02",
	}
}
