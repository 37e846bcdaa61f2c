package claim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"weft/internal/lease"
)

// remember is how long a lease that vanished with a restored store is still believed in: long enough for its holder to put
// it back, short against the 24 hours it would have lived.
const remember = 60 * time.Second

// View is what a host knows of the store: the last snapshot and the changes since. The zero View knows nothing. It is not
// safe for concurrent use.
type View struct {
	Revision int64 // everything up to here is in
	Cluster  uint64
	Epoch    int // how often the store's history was replaced by another

	Config         lease.Config // the last good one
	HasConfig      bool
	ConfigRevision int64  // revision of the config key's last change, 0: there is none
	ConfigErr      string // why the present config cannot be used, "" when it can
	ConfigWarnings []string

	configValue string
	records     map[string]*Record
	order       []*Record            // the same by IPv4 subnet, then key
	forget      map[string]time.Time // when a remembered record is given up

	near    near
	touched map[string]touch // records that changed since the peers were worked out
	whole   bool             // so much changed that all have to be looked at
	clash   bool             // of the peers, some were refused because they overlap others
}

// Reset takes a new snapshot; now is used to give up, later, what is only remembered. When the snapshot is of another
// history than the view (another cluster, or an earlier revision: a restored backup, lost data), leases it lacks are kept
// for a minute, so that their holders can put them back before anybody withdraws a route or takes their subnets.
func (v *View) Reset(s Snapshot, now time.Time) {
	replaced := v.Revision > 0 && (s.Revision < v.Revision || s.Cluster != v.Cluster)
	if replaced {
		v.Epoch++
	}
	old := v.records
	v.records = make(map[string]*Record, len(s.Entries))
	v.order = make([]*Record, 0, len(s.Entries))
	oldForget := v.forget
	v.forget = map[string]time.Time{}
	v.Revision, v.Cluster = s.Revision, s.Cluster
	v.whole, v.near = true, near{}
	config := Change{Entry: Entry{Key: ConfigKey}, Deleted: true}
	for _, e := range s.Entries {
		if key, ok := strings.CutPrefix(e.Key, Subnets); ok {
			r := readRecord(key, e, old[key])
			v.records[key], v.order = r, append(v.order, r)
		} else if e.Key == ConfigKey {
			config = Change{Entry: e}
		}
	}
	v.setConfig(config)
	for key, r := range old {
		if v.records[key] != nil || (!replaced && !r.Gone) {
			continue
		}
		until, ok := oldForget[key]
		if !ok {
			until = now.Add(remember)
		}
		gone := *r
		gone.Gone = true
		v.records[key], v.forget[key] = &gone, until
		v.order = append(v.order, &gone)
	}
	slices.SortFunc(v.order, byAddress)
	v.judge()
}

// Apply takes changes that follow the view's revision. Changes it knows already do nothing.
func (v *View) Apply(b Batch) {
	if v.records == nil {
		v.records = map[string]*Record{}
	}
	for _, c := range b.Changes {
		if c.Modified < v.Revision {
			continue // it would bring back what was deleted since
		}
		key, ok := strings.CutPrefix(c.Key, Subnets)
		switch {
		case !ok && c.Key == ConfigKey:
			v.setConfig(c)
			v.judge()
		case !ok:
		case c.Deleted:
			if r := v.records[key]; r != nil && r.Modified <= c.Modified {
				v.remove(key)
			}
		default:
			if r := v.records[key]; r == nil || r.Gone || r.Modified < c.Modified {
				v.put(readRecord(key, c.Entry, r))
			}
		}
	}
	v.Revision = max(v.Revision, b.Revision)
}

// readRecord reads an entry, or takes over what was read of the same bytes before.
func readRecord(key string, e Entry, old *Record) *Record {
	if old != nil && old.value == string(e.Value) {
		r := *old
		r.EtcdLease, r.Created, r.Modified, r.Gone = e.Lease, e.Created, e.Modified, false
		return &r
	}
	return newRecord(key, e)
}

// put files a record under its key, in place of an older one.
func (v *View) put(r *Record) {
	old := v.records[r.Key]
	v.drop(r.Key)
	v.touch(r.Key, old, r)
	v.records[r.Key] = r
	r.judge(v.Config)
	i, _ := slices.BinarySearchFunc(v.order, r, byAddress)
	v.order = slices.Insert(v.order, i, r)
	v.near.add(r)
}

func (v *View) remove(key string) {
	if r := v.records[key]; r != nil {
		v.touch(key, r, nil)
		v.drop(key)
	}
}

func (v *View) drop(key string) {
	r := v.records[key]
	if r == nil {
		return
	}
	if i, ok := slices.BinarySearchFunc(v.order, r, byAddress); ok {
		v.order = slices.Delete(v.order, i, i+1)
	}
	v.near.drop(r)
	delete(v.records, key)
	delete(v.forget, key)
}

// judge holds every record against the network config.
func (v *View) judge() {
	v.whole, v.touched = true, nil
	for _, r := range v.order {
		r.judge(v.Config)
	}
}

func byAddress(a, b *Record) int {
	return cmp.Or(a.Lease.Subnet.Compare(b.Lease.Subnet), cmp.Compare(a.Key, b.Key))
}

// setConfig reads the network config. A missing or broken one leaves the last good one in force.
func (v *View) setConfig(c Change) {
	switch {
	case c.Deleted:
		v.ConfigRevision, v.ConfigErr, v.configValue, v.ConfigWarnings = 0, "", "", nil
		return
	case v.ConfigRevision != 0 && v.configValue == string(c.Value):
		v.ConfigRevision = c.Modified
		return
	}
	v.ConfigRevision, v.configValue = c.Modified, string(c.Value)
	config, warnings, err := lease.ParseConfig(c.Value)
	if err != nil {
		v.ConfigErr, v.ConfigWarnings = err.Error(), nil
		return
	}
	v.Config, v.HasConfig, v.ConfigErr, v.ConfigWarnings = config, true, "", warnings
}

// Forget gives up what was only remembered and is due. It returns when the next one is, the zero time when there is none.
func (v *View) Forget(now time.Time) (next time.Time) {
	for key, until := range v.forget {
		if !now.Before(until) {
			v.remove(key)
			continue
		}
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	return next
}

// Record returns the lease under a key, and whether the store has it.
func (v *View) Record(key string) (Record, bool) {
	r := v.records[key]
	if r == nil || r.Gone {
		return Record{}, false
	}
	return *r, true
}

// Records returns all leases by IPv4 subnet, then key, the remembered ones too.
func (v *View) Records() []Record {
	out := make([]Record, len(v.order))
	for i, r := range v.order {
		out[i] = *r
	}
	return out
}
