// Package claim decides which subnet a host holds and what to do about it: a view of the store built from a snapshot and
// its changes, the choice of a subnet, and the life of the host's own lease as a step function.
//
// Floor 2, planners: no clock, no I/O, no random source of its own. The order of the choice is flannel's; what flannel loses
// (reservations, races, a lost lease, a restored store) is kept. Two hosts never hold overlapping subnets: a claim is a
// transaction that fails when anything it was decided on has changed.
package claim

import (
	"net/netip"

	"weft/internal/api"
	"weft/internal/lease"
)

// The keys of the store, below its prefix.
const (
	ConfigKey = "config"
	Subnets   = "subnets/"
)

// Entry is one key of the store as read.
type Entry struct {
	Key      string // below the prefix: "config" or "subnets/172.16.48.0-24"
	Value    []byte
	Lease    int64 // the etcd lease the key lives by, 0: it stays for ever (a reservation)
	Created  int64 // revision of the key's creation
	Modified int64 // revision of its last change; of a deletion, the revision of that
}

// Change is one event of the store.
type Change struct {
	Entry
	Deleted bool
}

// Snapshot is everything below the prefix at one revision.
type Snapshot struct {
	Entries  []Entry
	Revision int64
	Cluster  uint64 // identity of the store; another one means another history
}

// Batch is the changes of one or more whole revisions, in order.
type Batch struct {
	Changes  []Change
	Revision int64
}

// Record is one lease of the store. A key that names no subnet has a zero Lease; a value that cannot be used leaves only the
// subnets, which somebody holds all the same.
type Record struct {
	Key       string // below "subnets/"
	Lease     api.Lease
	Refused   string // why key or value cannot be used, "" when they can
	EtcdLease int64  // 0: a reservation
	Created   int64
	Modified  int64
	Gone      bool // remembered: the store was put back to an earlier state and does not know it (View.Reset)
	value     string
	misfit    string // why the network cannot carry it (lease.Config.Check), "" when it can
}

// Reserved says whether the lease belongs to its PublicIP for ever: its key has no etcd lease.
func (r Record) Reserved() bool { return r.EtcdLease == 0 }

// Idle says whether the lease is a reservation that no host has taken up yet: it was put once, without saying how to reach the host, in
// a network whose hosts say it.
func (r Record) Idle(c lease.Config) bool {
	return r.Reserved() && r.Created == r.Modified && r.Refused == "" && r.Lease.BackendType == "" && c.Backend.Type != lease.UDP &&
		c.Backend.Type != lease.Alloc
}

// newRecord reads an entry.
func newRecord(key string, e Entry) *Record {
	r := &Record{Key: key, EtcdLease: e.Lease, Created: e.Created, Modified: e.Modified, value: string(e.Value)}
	l, err := lease.Unmarshal(key, e.Value)
	if err != nil {
		r.Refused = err.Error()
		if v4, v6, err := lease.ParseKey(key); err == nil {
			r.Lease = api.Lease{Subnet: v4, SubnetV6: v6}
		}
		return r
	}
	r.Lease = l
	return r
}

// judge holds a record that could be read against the network config.
func (r *Record) judge(c lease.Config) {
	r.misfit = ""
	if r.Refused == "" {
		if err := c.Check(r.Lease); err != nil {
			r.misfit = "lease " + r.Key + ": " + err.Error()
		}
	}
}

// overlaps says whether two leases share an address in any family.
func overlaps(a, b api.Lease) bool {
	return overlap(a.Subnet, b.Subnet) || overlap(a.SubnetV6, b.SubnetV6)
}

func overlap(a, b netip.Prefix) bool { return a.IsValid() && b.IsValid() && a.Overlaps(b) }

// sameLease compares what two leases tell the other hosts.
func sameLease(a, b api.Lease) bool {
	x, errX := lease.Marshal(a)
	y, errY := lease.Marshal(b)
	return errX == nil && errY == nil && lease.Key(a) == lease.Key(b) && string(x) == string(y)
}
