package store

import (
	"cmp"
	"slices"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// journalLimit bounds how many changes are kept, and how many a reader gets: who missed more looks at everything.
const journalLimit = 64

// Journal keeps the latest changes of a list of leases, so that its readers need not compare long lists. The zero Journal is empty.
// It is not safe for concurrent use.
type Journal struct {
	version uint64 // counts changes; 0 is before any
	base    uint64 // since this version the changes are kept
	kept    []claim.Delta
}

// Reset notes that the list changed in a way that is not kept.
func (j *Journal) Reset() {
	j.version++
	j.base, j.kept = j.version, nil
}

// Add notes a change.
func (j *Journal) Add(d claim.Delta) {
	if len(j.kept) >= journalLimit {
		j.kept = slices.Clone(j.kept[journalLimit/2:])
		j.base += journalLimit / 2
	}
	j.version++
	j.kept = append(j.kept, d)
}

// Version is the list's version, 0 before it has one.
func (j *Journal) Version() uint64 { return j.version }

// Since returns the present version and the changes since an earlier one, each lease at most once. ok is false when they are not known
// or too many.
func (j *Journal) Since(version uint64) (now uint64, d claim.Delta, ok bool) {
	if version < j.base || version == 0 || version > j.version {
		return j.version, claim.Delta{}, false
	}
	for _, k := range j.kept[version-j.base:] {
		for _, l := range k.Gone {
			if i := slices.Index(d.Fresh, l); i >= 0 {
				d.Fresh = slices.Delete(d.Fresh, i, i+1)
			} else {
				d.Gone = append(d.Gone, l)
			}
		}
		for _, l := range k.Fresh {
			if i := slices.Index(d.Gone, l); i >= 0 {
				d.Gone = slices.Delete(d.Gone, i, i+1)
			} else {
				d.Fresh = append(d.Fresh, l)
			}
		}
		if len(d.Gone)+len(d.Fresh) > journalLimit {
			return j.version, claim.Delta{}, false
		}
	}
	return j.version, d, true
}

// merge returns the leases, sorted as View.Peers sorts them, after the changes; the slice given stays as it is.
func merge(peers []api.Lease, changes []claim.Delta) []api.Lease {
	out := make([]api.Lease, len(peers), len(peers)+len(changes))
	copy(out, peers)
	for _, d := range changes {
		for _, l := range d.Gone {
			if i, ok := slices.BinarySearchFunc(out, l, byAddress); ok {
				out = slices.Delete(out, i, i+1)
			}
		}
		for _, l := range d.Fresh {
			i, ok := slices.BinarySearchFunc(out, l, byAddress)
			if ok {
				out[i] = l
			} else {
				out = slices.Insert(out, i, l)
			}
		}
	}
	return out
}

func byAddress(a, b api.Lease) int {
	return cmp.Or(a.Subnet.Compare(b.Subnet), cmp.Compare(lease.Key(a), lease.Key(b)))
}
