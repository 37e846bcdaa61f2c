package claim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/api"
)

// TestAroundFollows: whatever changes, the records around a lease are those a look at all of them finds.
func TestAroundFollows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	value := []byte(`{"PublicIP":"172.17.42.32","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:01"}}`)
	entry := func(revision int64) Entry {
		key := fmt.Sprintf("%s172.16.%d.0-%d", Subnets, r.IntN(4)*64, 22+r.IntN(4))
		return Entry{Key: key, Value: value, Lease: 7, Created: revision, Modified: revision}
	}
	v := &View{}
	v.Reset(Snapshot{Revision: 1, Entries: []Entry{{Key: ConfigKey, Value: []byte(`{"Network":"172.16.0.0/12"}`), Modified: 1}}}, time.Unix(1, 0))
	own := api.Lease{Subnet: netip.MustParsePrefix("172.16.64.0/24")}
	found := 0
	for revision := int64(2); revision < 3000; revision++ {
		switch n := r.IntN(100); n {
		case 0:
			v.Reset(Snapshot{Revision: revision, Entries: []Entry{entry(revision), entry(revision)}}, time.Unix(revision, 0))
		case 1:
			own.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(r.IntN(4) * 64), 0}), 24)
		default:
			v.Apply(Batch{Revision: revision, Changes: []Change{{Entry: entry(revision), Deleted: n < 50}}})
		}
		var want []*Record
		for _, x := range v.order {
			if overlaps(x.Lease, own) {
				want = append(want, x)
			}
		}
		if got := v.around(own); !slices.Equal(got, want) {
			t.Fatalf("revision %d: %v, want %v", revision, got, want)
		}
		found += len(want)
	}
	if found == 0 {
		t.Error("nothing was ever around")
	}
}
