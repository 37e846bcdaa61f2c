package claim

import (
	"slices"

	"weft/internal/api"
)

// near are the records that share addresses with a lease, kept so that a change of another lease is not a look at all of them.
type near struct {
	known bool
	of    api.Lease // only its subnets count
	list  []*Record // in the view's order
}

// around returns the records that share addresses with the lease, its own too.
func (v *View) around(l api.Lease) []*Record {
	of := api.Lease{Subnet: l.Subnet, SubnetV6: l.SubnetV6}
	if !v.near.known || v.near.of != of {
		v.near = near{known: true, of: of}
		for _, r := range v.order {
			if overlaps(r.Lease, of) {
				v.near.list = append(v.near.list, r)
			}
		}
	}
	return v.near.list
}

// add takes a record in that is new in the view.
func (n *near) add(r *Record) {
	if n.known && overlaps(r.Lease, n.of) {
		i, _ := slices.BinarySearchFunc(n.list, r, byAddress)
		n.list = slices.Insert(n.list, i, r)
	}
}

// drop takes a record out that the view no longer has.
func (n *near) drop(r *Record) {
	if i := slices.Index(n.list, r); i >= 0 {
		n.list = slices.Delete(n.list, i, i+1)
	}
}
