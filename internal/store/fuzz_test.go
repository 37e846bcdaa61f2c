package store_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/lease/claim"
	"weft/internal/store"
	"weft/internal/store/mem"
)

// stutter repeats what a watch sends, also what is long past, as a watch that was taken up again may.
type stutter struct {
	*mem.Store
	old []claim.Batch
}

func (s *stutter) Watch(ctx context.Context, revision int64, to func(claim.Batch)) error {
	return s.Store.Watch(ctx, revision, func(b claim.Batch) {
		to(b)
		s.old = append(s.old, b)
		to(s.old[len(s.old)/2])
		to(b)
	})
}

// FuzzWatch: whatever foreign clients write and delete below the prefix, the Keeper knows in the end what a fresh listing says, keeps its
// own subnet or one of its own, and is not held up.
func FuzzWatch(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x83\x04\x45\xc6"), "172.16.1.0-24", `{"PublicIP":"10.0.0.1","PublicIPv6":null}`)
	f.Add([]byte("\x80\x00\x40\xc0\x07\x87\x47"), "8.8.8.0-24", `{"PublicIP":"10.0.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"aa:bb:cc:dd:ee:ff:00:11"}}`)
	f.Add([]byte("\x06\x46\x06\x86"), "0.0.0.0-0", `{`)
	f.Add([]byte("\x05\x45\x02"), "172.16.1.0-24&fd00::-64", "")
	f.Fuzz(func(t *testing.T, script []byte, key, value string) {
		script = script[:min(len(script), 64)]
		s := &stutter{Store: newStore()}
		avoid := []claim.HostRoute{{Dst: netip.MustParsePrefix("172.17.0.0/16"), Dev: "eth0"}}
		w := want(1)
		w.Avoid = avoid
		k := store.NewKeeper(s, w, slog.New(slog.NewTextHandler(io.Discard, nil)))
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		own(t, k)
		for i, c := range script {
			write(s.Store, k, c, i, key, value)
		}
		s.Put("subnets/172.31.255.0-24", `{"PublicIP":"192.0.2.250","PublicIPv6":null,"BackendType":"host-gw"}`, time.Hour)
		eventually(t, "the Keeper knows what a fresh listing says", func() bool { return asListed(s.Store, k, avoid) })
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// write is what one byte of the script makes a foreign client do.
func write(s *mem.Store, k *store.Keeper, c byte, i int, key, value string) {
	mine, _ := k.Own()
	keys := []string{key, "172.16.1.0-24", "172.16.1.128-25", "10.9.9.0-24", "172.16.1.0-24&fd00::-64", "", "172.17.3.0-24", ownKey(mine)}
	at := "subnets/" + keys[int(c)%len(keys)]
	switch {
	case c&0x80 != 0:
		s.Delete(at)
	case c&0x40 != 0:
		s.Put(at, value, time.Duration(c&0x20)*time.Hour)
	default:
		s.Put(at, fmt.Sprintf(`{"PublicIP":"10.0.0.%d","PublicIPv6":null,"BackendType":"host-gw"}`, i+1), time.Hour)
	}
	if c == 0x3f {
		s.Compact()
	}
}

func ownKey(l api.Lease) string {
	return strings.ReplaceAll(l.Subnet.String(), "/", "-")
}

// asListed says whether the Keeper knows what a view of a fresh listing does.
func asListed(s *mem.Store, k *store.Keeper, avoid []claim.HostRoute) bool {
	st := k.Status()
	snapshot := s.Snapshot()
	var v claim.View
	v.Reset(snapshot, time.Now())
	peers, refused := v.Peers(st.Own, avoid)
	_, there := v.Record(ownKey(st.Own))
	return there && slices.Equal(peers, st.Peers) && slices.Equal(refused, st.Refused)
}
