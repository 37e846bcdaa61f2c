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

// TestDelta makes random changes of random leases, good ones, broken ones and ones that overlap, and holds the peers known by deltas
// against those that a view worked out anew has.
func TestDelta(t *testing.T) {
	own := api.Lease{Subnet: netip.MustParsePrefix("10.1.0.0/24"), PublicIP: netip.MustParseAddr("192.0.2.1"), BackendType: "vxlan"}
	avoid := []HostRoute{{Dst: netip.MustParsePrefix("10.1.9.0/25")}}
	deltas := 0
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		entries := map[string]Entry{ConfigKey: {
			Key: ConfigKey, Value: []byte(`{"Network":"10.1.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`), Created: 1, Modified: 1,
		}}
		revision := int64(1)
		snapshot := func() Snapshot {
			s := Snapshot{Revision: revision, Cluster: 1}
			for _, e := range entries {
				s.Entries = append(s.Entries, e)
			}
			return s
		}
		var v View
		v.Reset(snapshot(), time.Now())
		peers, _ := v.Peers(own, avoid)
		for step := range 60 {
			revision++
			c := Change{Entry: randomEntry(rnd, seed%2 == 0)}
			c.Created, c.Modified = revision, revision
			if old, ok := entries[c.Key]; ok {
				c.Created = old.Created
				c.Deleted = rnd.IntN(2) == 0
			}
			if c.Deleted {
				delete(entries, c.Key)
			} else {
				entries[c.Key] = c.Entry
			}
			v.Apply(Batch{Changes: []Change{c}, Revision: revision})
			if rnd.IntN(3) == 0 {
				continue // two changes, one look
			}
			if d, ok := v.Delta(own, avoid); ok {
				deltas++
				peers = slices.DeleteFunc(slices.Clone(peers), func(l api.Lease) bool { return slices.Contains(d.Gone, l) })
				peers = append(peers, d.Fresh...)
				slices.SortFunc(peers, func(a, b api.Lease) int { return a.Subnet.Compare(b.Subnet) })
			} else {
				peers, _ = v.Peers(own, avoid)
			}
			var fresh View
			fresh.Reset(snapshot(), time.Now())
			if want, _ := fresh.Peers(own, avoid); !slices.Equal(peers, want) {
				t.Fatalf("seed %d step %d after %+v: peers\n%v\nwant\n%v", seed, step, c, peers, want)
			}
		}
	}
	if deltas < 500 {
		t.Errorf("only %d deltas", deltas)
	}
}

// randomEntry is a lease of one of few subnets; wild ones may be broken, overlap others or be of another length.
func randomEntry(rnd *rand.Rand, wild bool) Entry {
	bits := 24
	if wild && rnd.IntN(8) == 0 {
		bits = 22
	}
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(rnd.IntN(12))}), bits).Masked()
	value := fmt.Sprintf(`{"PublicIP":"192.0.2.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}}`,
		1+rnd.IntN(4), rnd.IntN(4))
	if wild && rnd.IntN(6) == 0 {
		value = `{"PublicIP":"nowhere"}`
	}
	return Entry{Key: fmt.Sprintf("%s%s-%d", Subnets, p.Addr(), p.Bits()), Value: []byte(value), Lease: 7}
}
