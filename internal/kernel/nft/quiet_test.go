package nft_test

import (
	"testing"
	"time"

	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
)

// TestLargeTransactionsAreQuiet: our watcher does not see a large transaction of ours, and sees what others do after it, while it is made,
// and to which table.
func TestLargeTransactionsAreQuiet(t *testing.T) {
	c := open(t)
	changed, err := c.WatchAll(t.Context(), kernel.TableRef{Family: nft.INet, Name: nft.TableName}, kernel.TableRef{Family: nft.IPv4, Name: "nat"})
	if err != nil {
		t.Fatal(err)
	}
	told := func(limit time.Duration) (which int) {
		select {
		case <-changed[0]:
			return 0
		case <-changed[1]:
			return 1
		case <-time.After(limit):
			return -1
		}
	}
	all := append([]nft.Op{newTable()}, plan(nft.NewMerge(nft.INet, nft.TableName), services(1000, 10))...)
	if err := c.Apply(all); err != nil {
		t.Fatal(err)
	}
	if i := told(50 * time.Millisecond); i >= 0 {
		t.Errorf("table %d: told of our own transaction", i)
	}
	for i, theft := range []string{"nft flush map inet weft eps4", "nft add table ip nat"} {
		run(t, theft)
		if got := told(30 * time.Second); got != i {
			t.Errorf("%s: told of table %d", theft, got)
		}
	}
}

// TestChangesWhileQuietAreSeen: others change the ruleset again and again while large transactions are made.
func TestChangesWhileQuietAreSeen(t *testing.T) {
	c := open(t)
	changed, err := c.Watch(t.Context(), nft.INet, nft.TableName)
	if err != nil {
		t.Fatal(err)
	}
	other := open(t)
	all := append([]nft.Op{newTable()}, plan(nft.NewMerge(nft.INet, nft.TableName), services(1000, 10))...)
	thief := []nft.Op{{Verb: nft.Add, Kind: nft.KindTable, Family: nft.IPv6, Table: "thief"}}
	if err := kernel.Meanwhile(c, all, func() error { return other.Apply(thief) }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Error("nobody was told that the ruleset changed meanwhile")
	}
}
