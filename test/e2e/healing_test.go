package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/lab"
)

// healingLimit is how soon an object that somebody else removed must be back.
const healingLimit = 2 * time.Second

// TestHealing removes what the agent made, by hand.
func TestHealing(t *testing.T) {
	for _, s := range []struct {
		name, mode, remove, look string
	}{
		{
			"flannel.1", nftables, "ip link del flannel.1",
			"for what in '-d link' '-4 addr' route neigh; do ip -o $what show dev flannel.1; done; bridge fdb show dev flannel.1",
		},
		{"route", nftables, "ip route del $(ip route show dev flannel.1 | cut -d' ' -f1)", "ip route show dev flannel.1"},
		{"nft table", nftables, "nft delete table inet weft", "nft -s list table inet weft"},
		{"KUBE-PORTALS rule", userspace, "iptables -t nat -D KUBE-PORTALS-CONTAINER 1", "iptables-save -t nat | grep ^-A"},
	} {
		t.Run(s.name, func(t *testing.T) {
			c, w := borrow(t, s.mode)
			// The words of the objects in order: rules of a set come in any order, links have new numbers.
			look := "(" + s.look + ") | sed -E 's/^[0-9]+: //' | tr -s ' ,\\t{}' '\\n' | sort"
			before := c.must(t, node1, look)
			t.Cleanup(func() {
				if t.Failed() { // the next test wants a whole cluster
					if err := c.Restart(context.Background(), node1, lab.Agent); err != nil {
						t.Error(err)
					}
				}
			})
			c.must(t, node1, s.remove)
			took := eventually(t, s.name+" is back", healingLimit, func() error {
				out, err := c.sh(t.Context(), node1, look)
				if diff := cmp.Diff(before, out); err == nil && diff != "" {
					err = errors.New("not as before:\n" + diff)
				}
				return err
			})
			t.Logf("%s: removed by hand, back after %s", s.name, took.Round(time.Millisecond))
			for _, p := range w.web {
				if _, err := c.get(t.Context(), node1, "http://"+p.Status.PodIP+"/"); err != nil {
					t.Errorf("%s is not reached any more: %v", p, err)
				}
			}
			if _, err := c.get(t.Context(), node1, w.url()); err != nil {
				t.Errorf("the service is not reached any more: %v", err)
			}
		})
	}
}
